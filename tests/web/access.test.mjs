// Whoever cannot see well, cannot use a mouse, or opens a link that somebody sent: rules of axe on every page in both themes, the keyboard
// alone, addresses and titles.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { AxeBuilder } from "@axe-core/playwright";
import { World, desktop, logIn, phone, startBrowser, untilScreen } from "./world.mjs";

let world, browser;
before(async () => {
  [world, browser] = await Promise.all([World.start(), startBrowser()]);
});
after(async () => {
  await browser?.close();
  await world?.stop();
});

/** What axe finds, short enough to read. */
async function violations(page) {
  const { violations } = await new AxeBuilder({ page }).analyze();
  return violations.flatMap(({ id, nodes }) =>
    nodes.map((node) => `${id}: ${node.target} ${node.any.concat(node.all)[0]?.message ?? ""}`),
  );
}

test("axe finds nothing on any page, in both themes", async () => {
  await world.fakeSession("busy", "raw; print at\\swork; echo bye; exit 0");
  await world.agent("session", "new", "--name", "broken", "--dir", world.work, "--env", "FAKE_CLAUDE=exit 7");
  await world.agent("session", "wait", "broken");
  const found = [];
  for (const [theme, viewport] of [
    ["dark", desktop],
    ["light", phone],
  ]) {
    const page = await logIn(browser, world, { viewport, colorScheme: theme });
    const [machine] = await page.evaluate(async () => (await fetch("/api/machines")).json());
    for (const path of [
      "/",
      "/sessions?view=list",
      "/sessions?view=grid",
      "/sessions/new",
      "/sessions/busy",
      "/sessions/broken",
      "/machines",
      `/machines/${machine.id}`,
      "/pair",
      "/settings",
      "/nothing-here",
    ]) {
      await page.goto(path);
      await page.waitForLoadState("networkidle");
      found.push(...(await violations(page)).map((text) => `${theme} ${path} ${text}`));
    }
    await page.goto("/");
    await page.waitForLoadState("networkidle");
    for (const [key, id] of [
      ["Control+k", "palette"],
      ["Shift+?", "key-sheet"],
    ]) {
      await page.keyboard.press(key);
      await page.getByTestId(id).waitFor();
      found.push(...(await violations(page)).map((text) => `${theme} ${id} ${text}`));
      await page.keyboard.press("Escape");
    }
    await page.context().close();
    const context = await browser.newContext({
      viewport,
      colorScheme: theme,
      baseURL: world.url,
    });
    const stranger = await context.newPage();
    await stranger.goto("/login");
    await stranger.getByTestId("login-button").waitFor();
    found.push(...(await violations(stranger)).map((text) => `${theme} login ${text}`));
    await context.close();
  }
  assert.deepEqual(found, []);
});

test("the keyboard alone starts a session, types into it and gets out of the terminal again", async () => {
  await world.useClaude("fake");
  const page = await logIn(browser, world);
  await page.keyboard.press("c");
  await page.waitForURL("**/sessions/new");
  await page.getByTestId("directory").waitFor();
  const isFocused = (id) =>
    page.getByTestId(id).evaluate((node) => node === document.activeElement || node.contains(document.activeElement));
  for (let tabs = 0; !(await isFocused("directory")); tabs++) {
    assert.ok(tabs < 30, "the directory is reached by Tab");
    await page.keyboard.press("Tab");
  }
  await page.keyboard.press("Control+a");
  await page.keyboard.type(world.work);
  await page.keyboard.press("Control+Enter");
  await page.getByTestId("session-page").waitFor();
  const id = await page.getByTestId("session-page").getAttribute("data-session-id");
  await untilScreen(page, id, "fake claude is ready");
  // The terminal has the focus without a click.
  await page.keyboard.type("hello keys");
  await untilScreen(page, id, "hello keys");
  await page.keyboard.press("Control+Shift+K");
  await page.getByTestId("palette-input").waitFor();
  await page.keyboard.press("Escape");
  await page.keyboard.press("Control+Shift+ArrowUp");
  assert.equal(await page.evaluate(() => document.activeElement?.closest(".xterm") === null), true, "out of the terminal");
  await page.keyboard.press("g");
  await page.keyboard.press("s");
  await page.waitForURL("**/sessions");
  assert.deepEqual(page.errors, []);
  await page.context().close();
});

test("views have addresses, Back goes back, and a tab's title tells the state", async () => {
  await world.fakeSession("titled", "raw; print here; echo bye; exit 0");
  const page = await logIn(browser, world);
  await page.goto("/sessions?view=grid");
  await page.getByTestId("sessions-grid").waitFor();
  await page.getByTestId("view-list").click();
  await page.getByTestId("sessions-list").waitFor();
  await page.goBack();
  await page.getByTestId("sessions-grid").waitFor();
  await page.goto("/sessions?view=list&q=titled");
  await page.getByTestId("sessions-list").waitFor();
  assert.equal(await page.getByTestId("sessions-filter").inputValue(), "titled");
  await page.goto("/sessions/titled");
  await page.waitForFunction(() => /^[●◆] titled · ClaudeNest$/.test(document.title));
  await world.agent("session", "kill", "titled");
  await page.waitForFunction(() => /^□ titled · ClaudeNest$/.test(document.title));
  await page.context().close();
});
