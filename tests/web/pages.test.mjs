// Every page of the web app against the real programs: pairing a second machine, starting sessions, and pictures of everything at both sizes.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { World, logIn, shoot, startBrowser, untilScreen } from "./world.mjs";

let world, browser, page;
before(async () => {
  [world, browser] = await Promise.all([World.start(), startBrowser()]);
  page = await logIn(browser, world);
});
after(async () => {
  await browser?.close();
  await world?.stop();
});

test("a person pairs a second machine: code, facts, the same six digits on both sides, yes on the machine", async () => {
  await world.do("pair_start");
  await world.do("until_screen", { as: "pair", text: "-" });
  const code = await until(async () => (await world.do("screen", { as: "pair" })).match(/\b[0-9A-Z]{3}-[0-9A-Z]{3}\b/)?.[0]);
  await page.goto("/pair");
  await shoot(page, "pair");
  await page.goto(`/pair?code=${code}`);
  await page.getByTestId("pair-facts").waitFor();
  await shoot(page, "pair-facts");
  await page.getByTestId("pair-claim").click();
  await page.getByTestId("pair-digits").waitFor();
  await shoot(page, "pair-digits");
  const digits = await page.getByTestId("pair-digits").getAttribute("data-digits");
  await until(async () => (await world.do("screen", { as: "pair" })).replace(/[^0-9A-Za-z@.]/g, "").includes(digits));
  const asked = await world.do("screen", { as: "pair" });
  assert.ok(asked.includes(world.email), `the machine shows the account:\n${asked}`);
  await world.do("type", { as: "pair", text: "y\r" });
  await page.getByTestId("pair-done").waitFor();
  await shoot(page, "pair-done");
  assert.deepEqual(page.errors, []);
});

test("a session is started from the form, and its page is alive", async () => {
  await page.goto("/sessions/new");
  await page.getByTestId("session-name").fill("from-the-form");
  await page.getByTestId("directory").fill(world.work);
  await page.keyboard.press("Escape");
  await shoot(page, "new-session");
  await page.getByTestId("start").click();
  await page.getByTestId("session-page").waitFor();
  const id = await page.getByTestId("session-page").getAttribute("data-session-id");
  await untilScreen(page, id, "fake claude is ready");
  await page.locator(".xterm-helper-textarea").first().focus();
  await page.keyboard.type("héllo from the form");
  await untilScreen(page, id, "héllo from the form");
  await shoot(page, "terminal");
  assert.deepEqual(page.errors, []);
});

test("every page, at desktop and phone size", async () => {
  await world.fakeSession("drawing", "raw; alt; echo bye; exit 0");
  await world.agent("session", "new", "--name", "ended", "--dir", world.work, "--env", "FAKE_CLAUDE=raw; print finished\\r\\n; exit 7");
  await world.agent("session", "wait", "ended");
  for (const [name, path] of Object.entries({
    overview: "/",
    machines: "/machines",
    sessions: "/sessions",
    settings: "/settings",
    ended: "/sessions/ended",
    drawing: "/sessions/drawing",
    "not-found": "/nothing-here",
    docs: "/docs",
  })) {
    await page.goto(path);
    await page.waitForLoadState("networkidle");
    await shoot(page, name);
  }
  await page.goto("/");
  const [machine] = await page.evaluate(async () => (await fetch("/api/machines")).json());
  await page.goto(`/machines/${machine.id}`);
  await page.getByRole("heading", { name: machine.name }).waitFor();
  await shoot(page, "machine");
  await page.goto("/sessions");
  await page.getByTestId("view-grid").click();
  await page.getByTestId("sessions-grid").waitFor();
  await page.waitForLoadState("networkidle");
  await shoot(page, "grid");
  await page.keyboard.press("Control+k");
  await page.getByTestId("palette").waitFor();
  await shoot(page, "palette");
  assert.deepEqual(page.errors, []);
});

test("bad input gets a sentence", async () => {
  await page.goto("/sessions/new");
  await page.getByTestId("session-name").fill("no spaces please");
  await page.getByTestId("directory").fill(`${world.work}/`);
  // The list is open above the button and closes when the button takes the focus: the click must not be lost with that.
  await page.getByTestId("directory-list").or(page.getByText("No directories")).first().waitFor();
  await page.getByTestId("start").click();
  await page.getByTestId("name-problem").waitFor();
  await page.getByTestId("directory").fill("/no/such/directory");
  await page.getByTestId("session-name").fill("spaceless");
  await page.getByTestId("start").click();
  await page.getByTestId("directory-problem").waitFor();
  await shoot(page, "new-session-problem");
  await page.goto("/pair");
  await page.getByTestId("pair-look").click();
  await page.getByTestId("pair-problem").waitFor();
});

test("a login link works once", async () => {
  const token = await world.do("login", { email: "carol@example.com" });
  const contexts = await Promise.all([browser.newContext({ baseURL: world.url }), browser.newContext({ baseURL: world.url })]);
  const [first, second] = await Promise.all(contexts.map((context) => context.newPage()));
  await first.goto(`/login#token=${token}`);
  await shoot(first, "login-link");
  await first.getByTestId("login-button").click();
  await first.waitForURL((url) => url.pathname === "/");
  await shoot(first, "first-run");
  await second.goto(`/login#token=${token}`);
  await second.getByTestId("login-button").click();
  await second.getByTestId("login-problem").waitFor();
  await shoot(second, "login");
  for (const context of contexts) await context.close();
});

/** Asks until there is an answer. */
async function until(ask) {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    assert.ok(Date.now() < deadline, "no answer in a minute");
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(done)));
  }
}
