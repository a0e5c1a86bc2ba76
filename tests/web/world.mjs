// Starts the world (tests/src/bin/world.rs) and a browser for a test file, and ends both.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
export const screenshots = join(root, "screenshots");
export const desktop = { width: 1440, height: 900 };
export const phone = { width: 390, height: 844 };

/** The harness program, in whichever target directory cargo used. */
function worldProgram() {
  const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");
  const path = join(target, "debug", "world");
  if (!existsSync(path)) throw new Error(`${path} is missing: run cargo build --workspace --bins`);
  return path;
}

/** Talks to the world: one request, one answer, in order. */
export class World {
  #child = spawn(worldProgram(), { stdio: ["pipe", "pipe", "inherit"] });
  #waiting = [];
  #which = "fake";
  #last = Promise.resolve();

  static async start() {
    const world = new World();
    const lines = createInterface({ input: world.#child.stdout });
    lines.on("line", (line) => world.#waiting.shift()?.resolve(JSON.parse(line)));
    lines.on("close", () => world.#waiting.splice(0).forEach((one) => one.reject(new Error("the world ended"))));
    const facts = await world.#answer();
    if (facts.error) throw new Error(facts.error);
    return Object.assign(world, facts);
  }

  #answer() {
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** Asks for something; throws with the reason if it fails. */
  do(what, args = {}) {
    const asked = this.#last.then(async () => {
      const answer = this.#answer();
      this.#child.stdin.write(`${JSON.stringify({ do: what, ...args })}\n`);
      const { ok, error } = await answer;
      if (error) throw new Error(`${what}: ${error}`);
      return ok;
    });
    this.#last = asked.catch(() => undefined);
    return asked;
  }

  /** Runs a command of the agent's CLI that must succeed. */
  async agent(...args) {
    const { code, stdout, stderr } = await this.do("agent", { args });
    if (code !== 0) throw new Error(`claudenest-agent ${args.join(" ")}: exit ${code}\n${stdout}${stderr}`);
    return stdout;
  }

  /** Starts a session of the fake Claude. */
  async fakeSession(name, script) {
    await this.useClaude("fake");
    await this.agent("session", "new", "--name", name, "--dir", this.work, "--env", `FAKE_CLAUDE=${script}`);
    return JSON.parse(await this.agent("session", "wait", name, "--for", "running", "--json"));
  }

  /** Which Claude the next sessions get: "real" or "fake". */
  async useClaude(which) {
    if (this.#which !== which) await this.do("use_claude", { which });
    this.#which = which;
  }

  async stop() {
    const ended = new Promise((done) => this.#child.once("exit", done));
    this.#child.stdin.end();
    await ended;
  }
}

/** Chromium, quiet towards the network. */
export async function startBrowser() {
  const names = [process.env.CHROMIUM_BIN, "chromium", "chromium-browser", "google-chrome"].filter(Boolean);
  const path = names.map((name) => spawnSync("sh", ["-c", `command -v "${name}"`]).stdout.toString().trim()).find(Boolean);
  if (!path) throw new Error("no Chromium found: run make setup");
  return chromium.launch({
    executablePath: path,
    args: [
      "--no-sandbox",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-default-apps",
      "--disable-sync",
      "--no-first-run",
      "--disable-dev-shm-usage",
      "--enable-unsafe-swiftshader",
    ],
  });
}

/** A page of a logged-in user. Errors of the page fail the test at its end through `errors`. */
export async function logIn(browser, world, { viewport = desktop, email = world.email, prefs, ...more } = {}) {
  const context = await browser.newContext({ viewport, baseURL: world.url, ...more });
  await context.addInitScript((prefs) => {
    localStorage.setItem("claudenest.debug", "1");
    if (prefs) localStorage.setItem("claudenest.prefs", JSON.stringify(prefs));
  }, prefs);
  const page = await context.newPage();
  page.errors = [];
  page.on("pageerror", (error) => page.errors.push(`${error}`));
  page.on("console", (message) => {
    if (message.type() === "error") page.errors.push(message.text());
  });
  const token = await world.do("login", { email });
  await page.goto(`/login#token=${token}`);
  await page.getByTestId("login-button").click();
  await page.waitForURL((url) => url.pathname === "/");
  // Asking who is logged in before anybody is counts as an error for the browser.
  page.errors.length = 0;
  return page;
}

/** What the page knows of a session's terminal; see relay/web/src/terminal/debug.ts. */
export const probe = (page, session) => page.evaluate((id) => window.__claudenest?.sessions[id]?.() ?? null, session);

/** The id of a session by its name. */
export const idOf = async (world, name) => JSON.parse(await world.agent("session", "show", name, "--json")).id;

/** Opens a session's page and waits until its terminal is there. Answers the session's id. */
export async function openSession(page, world, name) {
  const id = await idOf(world, name);
  await page.goto(`/sessions/${name}`);
  await page.waitForFunction((id) => window.__claudenest?.sessions[id], id, { timeout: 60_000 });
  return id;
}

/** Gives the terminal the keyboard, as a click into it would. */
export const focusTerminal = (page) => page.locator(".xterm-helper-textarea").first().focus();

/** Where on the page the character `at` of a text on the screen is. */
export async function placeOf(page, session, text, at = 0) {
  const { screen, size } = await probe(page, session);
  const row = screen.findIndex((line) => line.includes(text));
  if (row < 0) throw new Error(`${text} is not on the screen:\n${screen.join("\n")}`);
  const box = await page.locator(".xterm-screen").first().boundingBox();
  return {
    x: box.x + ((screen[row].indexOf(text) + at + 0.5) * box.width) / size.cols,
    y: box.y + ((row + 0.5) * box.height) / size.rows,
  };
}

/** Waits until the visible screen of a session contains a text. */
export function untilScreen(page, session, text, timeout = 60_000) {
  return page.waitForFunction(
    ([id, wanted]) => window.__claudenest?.sessions[id]?.().screen.join("\n").includes(wanted),
    [session, text],
    { timeout, polling: 50 },
  );
}

/** Takes a screenshot at desktop and phone size. */
export async function shoot(page, name) {
  mkdirSync(screenshots, { recursive: true });
  for (const [size, viewport] of Object.entries({ desktop, phone })) {
    await page.setViewportSize(viewport);
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
    await page.screenshot({ path: join(screenshots, `${name}-${size}.png`) });
  }
  await page.setViewportSize(desktop);
}
