// When something does not work: pairing that fails, sessions that do not start, a relay or a network that is away. Each time the page says what
// happened and what to do, and comes back by itself.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { World, focusTerminal, logIn, openSession, phone, shoot, startBrowser, untilScreen } from "./world.mjs";

let world, browser;
before(async () => {
  [world, browser] = await Promise.all([World.start(), startBrowser()]);
});
after(async () => {
  await browser?.close();
  await world?.stop();
});

/** Starts `pair` in a terminal of a second machine and reads the code that it shows. */
async function pairStart(page) {
  await world.do("pair_start");
  await world.do("until_screen", { as: "pair", text: "Pairing code:" });
  const find = async () => (await world.do("screen", { as: "pair" })).match(/\b[0-9A-Z]{3}-[0-9A-Z]{3}\b/)?.[0];
  for (let tries = 0; tries < 600; tries++) {
    const code = await find();
    if (code) return code;
    await page.evaluate(() => new Promise((done) => requestAnimationFrame(done)));
  }
  throw new Error("no code");
}
const claim = async (page, code) => {
  await page.goto(`/pair?code=${code}`);
  await page.getByTestId("pair-claim").click();
  await page.getByTestId("pair-digits").waitFor();
};
const textOf = (page, testid) => page.getByTestId(testid).innerText();

test("a pairing that the machine refuses, that the person cancels, or whose time runs out, says so and can be started over", async () => {
  const page = await logIn(browser, world);
  await claim(page, await pairStart(page));
  await world.do("until_screen", { as: "pair", text: "?" });
  await world.do("type", { as: "pair", text: "n\r" });
  await page.getByTestId("pair-denied").waitFor();
  assert.match(await textOf(page, "pair-denied"), /refused on the machine or cancelled here.*Run the command again/s);
  await shoot(page, "pair-denied");
  await page.getByTestId("pair-again").click();
  await page.getByTestId("code-first").waitFor();

  await claim(page, await pairStart(page));
  await page.getByTestId("pair-cancel").click();
  await page.getByTestId("pair-denied").waitFor();
  // The machine is told, too.
  await world.do("until_screen", { as: "pair", text: "cancelled" }).catch(async (error) => {
    throw new Error(`${error.message}\n${await world.do("screen", { as: "pair" })}`);
  });

  await claim(page, await pairStart(page));
  await world.do("expire_pairings");
  await page.getByTestId("pair-expired").waitFor();
  assert.match(await textOf(page, "pair-expired"), /Time ran out/);
  await shoot(page, "pair-expired");
  await page.context().close();
});

test("a wrong code says what to check, and too many of them how long to wait", async () => {
  const page = await logIn(browser, world, { email: "guesser@example.com" });
  await page.goto("/pair");
  const enter = async (code) => {
    await page.getByTestId("code-first").fill(code);
    await page.waitForFunction(() => document.querySelector("[data-testid=pair-page]").dataset.step === "enter");
    await page.getByTestId("pair-problem").waitFor();
    return textOf(page, "pair-problem");
  };
  assert.match(await enter("ABC-DEF"), /No machine waits with this code/);
  await shoot(page, "pair-wrong");
  for (let tries = 0; tries < 12; tries++) {
    const problem = await enter(`AB${tries % 10}-DEF`);
    if (/ten minutes|10 minutes/.test(problem) && /too many/i.test(problem)) {
      await shoot(page, "pair-too-many");
      await page.context().close();
      return;
    }
  }
  assert.fail("no limit in a dozen tries");
});

test("a session that cannot start says why and what to do, in the reader's language", async () => {
  const page = await logIn(browser, world, { prefs: { locale: "fr" } });
  await world.do("break_claude");
  const { code } = await world.do("agent", { args: ["session", "new", "--name", "never", "--dir", world.work] });
  assert.equal(code, 0);
  await page.goto("/sessions/never");
  const bar = page.getByTestId("ended-bar");
  await bar.waitFor();
  // Between the tries it says that it tries again.
  await page.waitForFunction(() => /Nouvel essai après/.test(document.querySelector("[data-testid=ended-bar]")?.textContent));
  await shoot(page, "session-retries");
  await page.waitForFunction(() => /n’a pas pu démarrer \(3 essais\)/.test(document.querySelector("[data-testid=ended-bar]")?.textContent), null, {
    timeout: 60_000,
  });
  assert.match(await bar.innerText(), /claude.*Corrigez cela sur la machine, puis relancez-la/s);
  await shoot(page, "session-not-started");
  // Put right on the machine, whose agent comes back.
  await world.do("use_claude", { which: "fake" });
  const isLinked = async () => JSON.parse(await world.agent("status", "--json")).daemon.relays.some(({ state }) => state === "connected");
  for (let tries = 0; !(await isLinked()); tries++) assert.ok(tries < 500, "the agent's link comes back");
  await page.getByTestId("ended-restart").click();
  await untilScreen(page, await page.getByTestId("session-page").getAttribute("data-session-id"), "fake claude is ready");
  await page.context().close();
});

test("a page that is opened while the relay is away waits for it, and an open one comes back where it was", async () => {
  const page = await logIn(browser, world, { viewport: phone, isMobile: true, hasTouch: true });
  await world.fakeSession("waits", "raw; print before; echo bye; exit 0");
  const id = await openSession(page, world, "waits");
  await untilScreen(page, id, "before");
  // The app itself comes from the relay: an open tab is what can be there without it.
  const other = await page.context().newPage();
  await other.goto("/machines");
  await other.getByTestId("nav-inbox").waitFor();
  await world.do("kill_relay");
  await other.getByTestId("link-banner").waitFor();
  assert.match(await textOf(other, "link-banner"), /since/);
  await shoot(other, "relay-away");
  await page.waitForFunction(() => document.querySelector("[data-testid=link-mark]").dataset.kind === "away");
  await world.do("resume_relay");
  await other.getByTestId("link-banner").waitFor({ state: "detached" });
  await page.waitForFunction(() => document.querySelector("[data-testid=link-mark]").dataset.kind === "live");
  await page.evaluate((id) => window.__claudenest.type(id, "after"), id);
  await untilScreen(page, id, "beforeafter");

  // The app is loaded, its first question gets no answer.
  let isAway = true;
  await page.route("**/api/**", (route) => (isAway ? route.abort("connectionrefused") : route.continue()));
  await page.reload();
  await page.getByTestId("relay-away").waitFor();
  await shoot(page, "relay-away-at-load");
  isAway = false;
  await untilScreen(page, id, "beforeafter");
  await page.context().close();
});

test("after sleep the terminal has every byte, and what was typed in the meantime is delivered or told", async () => {
  const page = await logIn(browser, world);
  const all = `${world.home}/slept`;
  await world.fakeSession("sleeps", `raw; print start; wait go; lines 300 ${world.home}/l; print WOKE\\r\\n; total ${all}; echo bye; exit 0`);
  const id = await openSession(page, world, "sleeps");
  await untilScreen(page, id, "start");
  const mark = (kind) => page.waitForFunction((kind) => document.querySelector("[data-testid=link-mark]").dataset.kind === kind, kind, { timeout: 60_000 });
  const cdp = await page.context().newCDPSession(page);
  await cdp.send("Page.enable");
  await page.context().setOffline(true);
  // An open socket does not notice by itself: that is what asking is for.
  await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
  await mark("away");
  await world.agent("session", "send", "sleeps", "go");
  await world.agent("session", "wait", "sleeps", "--for", "running");
  await focusTerminal(page);
  await page.keyboard.type("typed asleep");
  await page.context().setOffline(false);
  await page.evaluate(() => window.dispatchEvent(new Event("online")));
  await mark("live");
  await untilScreen(page, id, "WOKE");
  await page.waitForFunction(
    (id) => {
      const told = document.querySelector("[data-testid=notice-bad]")?.textContent ?? "";
      return window.__claudenest.sessions[id]().screen.join("\n").includes("typed asleep") || /12 characters were not delivered/.test(told);
    },
    id,
    { timeout: 60_000 },
  );
  const got = await page.evaluate((id) => window.__claudenest.sessions[id](), id);
  assert.equal(got.snapshots, 0, "no snapshot was needed");
  await page.context().close();
});
