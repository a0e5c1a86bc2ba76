// What was printed before a page came: whole for short sessions, on demand for long ones, and the same screen either way.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { World, idOf, logIn, probe, startBrowser, untilScreen } from "./world.mjs";

let world, browser;
before(async () => {
  [world, browser] = await Promise.all([World.start(), startBrowser()]);
});
after(async () => {
  await browser?.close();
  await world?.stop();
});

const rows = async (page, id) => (await probe(page, id)).screen;

test("a page that comes late has everything of a short session above its screen", async () => {
  await world.fakeSession("short", `raw; print first\\sline\\r\\n; lines 2000 ${world.home}/short; print LAST; echo bye; exit 0`);
  const page = await logIn(browser, world);
  const id = await idOf(world, "short");
  await page.goto("/sessions/short");
  await untilScreen(page, id, "LAST");
  const { history, status, snapshots } = await probe(page, id);
  assert.equal(history[0], "first line");
  assert.equal(status.olderBytes, 0);
  assert.equal(snapshots, 0);
  assert.equal(status.skippedBytes, 0);
  await page.context().close();
});

test("older output of a long session is brought on demand, and the screen stays what it was", async () => {
  await world.fakeSession(
    "long",
    `raw; print first\\sline\\r\\n; lines 15000 ${world.home}/long; print LAST; wait go; print \\r\\nWENT; echo bye; exit 0`,
  );
  const page = await logIn(browser, world);
  const id = await idOf(world, "long");
  await world.agent("session", "wait", "long", "--for", "running");
  // All of it must be out: a page that watches it come has seen it.
  await page.goto("/sessions/long");
  await untilScreen(page, id, "LAST");
  // From here on the terminal has this page's size.
  await page.waitForFunction((id) => window.__claudenest.sessions[id]().size.rows > 40, id);
  await page.reload();
  await untilScreen(page, id, "LAST");
  const before = await probe(page, id);
  assert.ok(before.status.olderBytes > 512 * 1024);
  assert.equal(before.status.skippedBytes, 0, "nothing that this page was shown was skipped");
  await page.getByTestId("terminal").hover();
  await page.mouse.wheel(0, -300);
  await page.getByTestId("load-older").click();
  await page.waitForFunction((id) => {
    const { history, status } = window.__claudenest.sessions[id]();
    return status.loading === null && status.phase === "live" && history.length > 10_000;
  }, id);
  // The last of it is still being drawn when the loading ends.
  await untilScreen(page, id, "LAST");
  assert.equal((await probe(page, id)).history[0], "first line");
  assert.deepEqual(await rows(page, id), before.screen);
  await page.locator(".xterm-helper-textarea").first().focus();
  await page.keyboard.type("go");
  await untilScreen(page, id, "WENT");
  assert.deepEqual(page.errors, []);
  await page.context().close();
});
