/** Pictures of every page from the mock relay, to be looked at: `npm run shots -- [name…]`. Wants a built `dist`. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { chromium, type Page } from "playwright-core";

const here = fileURLToPath(new URL(".", import.meta.url));
const out = process.env.SHOTS_DIR ?? join(here, "../../../screenshots");
const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
mkdirSync(out, { recursive: true });

type Shot = {
  path: string;
  env?: "empty" | "out";
  act?: (page: Page) => Promise<void>;
  only?: "desktop" | "phone";
};
const shots: Record<string, Shot> = {
  login: { path: "/login", env: "out" },
  "login-link": { path: "/login#token=abc", env: "out" },
  "first-run": { path: "/", env: "empty" },
  overview: { path: "/" },
  sessions: { path: "/sessions" },
  grid: { path: "/sessions", act: async (page) => page.getByTestId("view-grid").click() },
  inbox: { path: "/inbox" },
  "inbox-low": {
    path: "/inbox",
    act: async (page) => page.locator("main").evaluate((main) => main.scrollTo(0, main.scrollHeight / 2)),
  },
  "inbox-end": {
    path: "/inbox",
    act: async (page) => page.locator("main").evaluate((main) => main.scrollTo(0, main.scrollHeight)),
  },
  "inbox-empty": { path: "/inbox", env: "empty" },
  "inbox-always": {
    path: "/inbox",
    act: async (page) => {
      await page.getByTestId("ask-always").nth(1).click();
      await page.getByTestId("ask-deny").first().click();
    },
  },
  drawer: {
    path: "/sessions",
    act: async (page) => {
      await page.keyboard.press("a");
      await page.keyboard.press("j");
    },
  },
  bar: { path: "/sessions/fix-login" },
  "bar-open": { path: "/sessions/fix-login", act: async (page) => page.getByTestId("ask-bar-open").click() },
  locks: { path: "/locks" },
  "lock-form": { path: "/locks", act: async (page) => page.getByTestId("take-lock").click() },
  "lock-away": { path: "/locks", act: async (page) => page.getByTestId("lock-release").nth(2).click() },
  terminal: { path: "/sessions/fix-login" },
  shell: {
    path: "/sessions/nest-shell",
    act: async (page) => {
      const field = page.locator(".xterm-helper-textarea");
      await field.focus();
      await page.keyboard.type("echo hello");
    },
  },
  menu: { path: "/sessions/nest-shell", act: async (page) => page.getByTestId("session-menu").click() },
  search: {
    path: "/sessions/fix-login",
    only: "desktop",
    act: async (page) => {
      await page.getByTestId("open-search").click();
      await page.getByTestId("search-input").fill("demo");
    },
  },
  entry: {
    path: "/sessions/nest-shell",
    only: "phone",
    act: async (page) => page.getByTestId("open-entry").click(),
  },
  ended: { path: "/sessions/port-to-axum" },
  away: { path: "/sessions/docs-french" },
  conversation: { path: "/sessions/triage-bot" },
  new: {
    path: "/sessions/new",
    act: async (page) =>
      void (await page
        .getByTestId("directory")
        .focus()
        .catch(() => undefined)),
  },
  machines: { path: "/machines" },
  machine: { path: "/machines/studio" },
  "machine-away": { path: "/machines/build-server-frankfurt" },
  pair: { path: "/pair" },
  "pair-facts": { path: "/pair?code=A7K-M2X" },
  "pair-digits": {
    path: "/pair?code=A7K-M2X",
    act: async (page) => {
      await page.getByTestId("pair-claim").click();
      await page.getByTestId("pair-digits").waitFor();
    },
  },
  settings: { path: "/settings" },
  palette: { path: "/sessions", act: async (page) => page.keyboard.press("Control+k") },
  keys: { path: "/sessions", act: async (page) => page.keyboard.press("?") },
  dialog: {
    path: "/sessions/nest-shell",
    act: async (page) => {
      await page.getByTestId("session-menu").click();
      await page.getByTestId("do-kill").click();
    },
  },
  "not-found": { path: "/nothing/here" },
};

function mock(port: number, env: Record<string, string>): Promise<ChildProcess> {
  const child = spawn(process.execPath, ["--import", "tsx", join(here, "mock.ts")], {
    env: { ...process.env, PORT: String(port), MOCK_POLLS: "1000", ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  return new Promise((resolve) => child.stdout?.once("data", () => resolve(child)));
}

const wanted = process.argv.slice(2);
const relays = {
  normal: await mock(7461, {}),
  empty: await mock(7462, { MOCK_EMPTY: "1" }),
  out: await mock(7463, { MOCK_LOGGED_OUT: "1" }),
};
const ports = { normal: 7461, empty: 7462, out: 7463 };
const browser = await chromium.launchPersistentContext(mkdtempSync(join(tmpdir(), "shots-")), {
  executablePath,
  headless: true,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
try {
  const sizes = { desktop: { width: 1440, height: 900 }, phone: { width: 390, height: 844 } };
  for (const [device, viewport] of Object.entries(sizes)) {
    for (const colorScheme of ["dark", "light"] as const) {
      for (const [name, shot] of Object.entries(shots)) {
        if (wanted.length > 0 && !wanted.includes(name)) continue;
        if (shot.only && shot.only !== device) continue;
        const page = await browser.newPage();
        page.on("console", (message) => {
          if (message.type() === "error" || message.type() === "warning")
            console.log(`${device} ${name}: ${message.text()}`);
        });
        page.on("pageerror", (error) => console.log(`${device} ${name}: ${error.message}`));
        await page.setViewportSize(viewport);
        await page.emulateMedia({ colorScheme });
        await page.addInitScript((language) => {
          const saved = JSON.stringify({ locale: language });
          if (!localStorage.getItem("claudenest.prefs")) localStorage.setItem("claudenest.prefs", saved);
        }, process.env.SHOTS_LANG ?? "en");
        await page.goto(`http://127.0.0.1:${ports[shot.env ?? "normal"]}${shot.path}`);
        await page.waitForTimeout(600);
        await shot
          .act?.(page)
          .catch((error: Error) => console.log(`${device} ${name}: ${error.message.split("\n")[0]}`));
        await page.waitForTimeout(900);
        await page.screenshot({ path: join(out, `${name}-${device}-${colorScheme}.png`) });
        await page.evaluate(() => localStorage.clear());
        await page.close();
      }
    }
  }
} finally {
  await browser.close();
  for (const child of Object.values(relays)) child.kill();
}
