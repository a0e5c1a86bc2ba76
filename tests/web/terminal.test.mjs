// What a person does with a terminal besides typing: its size, the selection, searching, links, and a phone's keyboard.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { World, desktop, focusTerminal, logIn, openSession, phone, placeOf, probe, startBrowser, untilScreen } from "./world.mjs";

let world, browser;
before(async () => {
  [world, browser] = await Promise.all([World.start(), startBrowser()]);
});
after(async () => {
  await browser?.close();
  await world?.stop();
});

/** A session that has printed something and then only listens. */
async function show(page, name, print) {
  await world.fakeSession(name, `raw; print ${print}; echo bye; exit 0`);
  return openSession(page, world, name);
}
const untilSize = (page, id, { cols, rows }) =>
  page.waitForFunction(
    ([id, cols, rows]) => {
      const { size } = window.__claudenest.sessions[id]();
      return size.cols === cols && size.rows === rows;
    },
    [id, cols, rows],
    { timeout: 60_000 },
  );

test("browser and attach take the size from each other, and each says whose it is", async () => {
  await world.fakeSession("sized", "raw; size; exit 0");
  // Whoever attaches has the size when nobody else has it.
  await world.do("attach", { name: "sized", as: "cli", take_size: true });
  await world.do("until_screen", { as: "cli", text: "size 120x40" });
  const page = await logIn(browser, world, { viewport: desktop });
  const id = await openSession(page, world, "sized");
  await untilScreen(page, id, "size 120x40");
  await page.getByTestId("take-size").waitFor();
  const title = () => page.getByTestId("session-size").getAttribute("title");
  assert.match(await title(), /120 × 40/);

  await page.getByTestId("take-size").click();
  await page.getByTestId("take-size").waitFor({ state: "detached" });
  const { size } = await probe(page, id);
  assert.ok(size.cols > 120, `${size.cols} columns`);
  await world.do("until_screen", { as: "cli", text: `size ${size.cols}x${size.rows}` });
  await page.waitForFunction(() => /browser/.test(document.querySelector("[data-testid=session-size]").title));

  await world.do("hang_up", { as: "cli" });
  await world.do("attach", { name: "sized", as: "cli", take_size: true });
  await untilSize(page, id, { cols: 120, rows: 40 });
  await page.getByTestId("take-size").waitFor();
  await page.waitForFunction(() => /attach/.test(document.querySelector("[data-testid=session-size]").title));
  // Nobody else wants it any more: the browser has it again, without asking.
  await world.do("hang_up", { as: "cli" });
  await untilSize(page, id, size);
  assert.deepEqual(page.errors, []);
  await world.agent("session", "kill", "sized");
  await page.context().close();
});

test("a selection is copied as it is on the screen", async () => {
  const page = await logIn(browser, world, { permissions: ["clipboard-read", "clipboard-write"] });
  const id = await show(page, "copied", "first\\sline\\s→\\sé漢字\\r\\nsecond\\sline\\r\\n");
  await untilScreen(page, id, "second line");
  const from = await placeOf(page, id, "first", 0);
  const to = await placeOf(page, id, "second line", 6);
  await page.mouse.move(from.x - 3, from.y);
  await page.mouse.down();
  await page.mouse.move(to.x - 3, to.y, { steps: 8 });
  await page.mouse.up();
  await page.keyboard.press("Control+Shift+C");
  await page.getByTestId("notice-info").waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), "first line → é漢字\nsecond");
  // The key was the page's; nothing of it reached the program.
  await page.keyboard.type("!");
  await untilScreen(page, id, "!");
  assert.ok(!(await probe(page, id)).screen.join("\n").includes("^C"));
  await page.context().close();
});

test("the search finds what is above the screen, says how often, and gives the keyboard back", async () => {
  const page = await logIn(browser, world);
  const lines = Array.from({ length: 200 }, (_, n) => (n === 20 || n === 150 ? `line\\s${n}\\sneedle` : `line\\s${n}`)).join("\\r\\n");
  const id = await show(page, "searched", lines);
  await untilScreen(page, id, "line 199");
  await focusTerminal(page);
  await page.keyboard.press("Control+Shift+F");
  await page.getByTestId("search-input").fill("needle");
  const count = page.getByTestId("search-count");
  await page.waitForFunction(() => document.querySelector("[data-testid=search-count]").textContent.trim() === "2 of 2");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("[data-testid=search-count]").textContent.trim() === "1 of 2");
  // What is found is shown, and the mark says that this is not the live end.
  await page.waitForFunction(() => document.querySelector("[data-testid=link-mark]").dataset.kind === "history");
  await page.getByTestId("search-input").fill("haystack");
  await page.waitForFunction(() => document.querySelector("[data-testid=search-count]").textContent.trim() === "no match");
  await page.keyboard.press("Escape");
  await count.waitFor({ state: "detached" });
  await page.getByTestId("to-live").click();
  await page.waitForFunction(() => document.querySelector("[data-testid=link-mark]").dataset.kind === "live");
  await focusTerminal(page);
  await page.keyboard.type("typed again");
  await untilScreen(page, id, "typed again");
  await page.context().close();
});

test("a link is opened only after the person saw where it leads, and only on the web", async () => {
  const page = await logIn(browser, world);
  const link = (uri, text) => `\\e]8\\p\\p${uri}\\a${text}\\e]8\\p\\p\\a\\r\\n`;
  const bad = ["javascript:window.top.hacked=1", "file:///etc/passwd", "data:text/html,<script>hacked=1</script>", "vbscript:x", "mailto:a@example.com"];
  const id = await show(
    page,
    "links",
    [
      "see\\shttps://plain.example/a?b=c#d\\sthere\\r\\n",
      link("https://evil.example/x", "https://bank.example/"),
      link("https://xn--pple-43d.example/%E2%80%AE", "nice"),
      ...bad.map((uri, n) => link(uri, `bad-${n}`)),
      "end",
    ].join(""),
  );
  await untilScreen(page, id, "end");
  const opened = [];
  await page.context().route(/\.example\//, (route) => route.fulfill({ body: "fine", contentType: "text/plain" }));
  page.context().on("page", (other) => opened.push(other));
  const click = async (text) => {
    const { x, y } = await placeOf(page, id, text, 2);
    await page.mouse.move(x - 20, y);
    await page.mouse.move(x, y, { steps: 4 });
    // A link answers clicks once the terminal has found it below the pointer.
    await page.waitForFunction(() => document.querySelector(".xterm-cursor-pointer"), null, { timeout: 5_000 });
    await page.mouse.click(x, y);
  };
  const dialog = page.getByRole("dialog");

  await click("https://plain");
  await dialog.getByText("https://plain.example/a?b=c#d", { exact: true }).waitFor();
  await page.getByTestId("dialog-cancel").click();
  await dialog.waitFor({ state: "detached" });
  assert.deepEqual(opened, []);

  // What is written there is not where it leads.
  await click("https://bank");
  await dialog.getByText("https://evil.example/x", { exact: true }).waitFor();
  const [tab] = await Promise.all([page.context().waitForEvent("page"), page.getByTestId("dialog-confirm").click()]);
  await tab.waitForURL("https://evil.example/x");
  assert.equal(await tab.evaluate(() => window.opener), null, "the other page cannot reach this one");
  await tab.close();

  await click("nice");
  await dialog.getByText("https://xn--pple-43d.example/%E2%80%AE", { exact: true }).waitFor();
  await page.getByTestId("dialog-cancel").click();

  for (const n of bad.keys()) {
    const { x, y } = await placeOf(page, id, `bad-${n}`, 2);
    await page.mouse.move(x, y, { steps: 4 });
    await page.mouse.click(x, y);
  }
  // The terminal still answers, nothing was opened, nothing was run, nothing was asked.
  await focusTerminal(page);
  await page.keyboard.type("alive");
  await untilScreen(page, id, "alive");
  assert.equal(await dialog.count(), 0);
  assert.equal(opened.length, 1);
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  await page.context().close();
});

test("a phone's keyboard covers neither keys nor composer, and never resizes the program", async () => {
  await world.fakeSession("phone", "raw; print ready; size; exit 0");
  const wide = await logIn(browser, world, { viewport: desktop });
  const id = await openSession(wide, world, "phone");
  // The page has all of its bars, and the terminal has kept its size since: the first one may be of a page without them.
  await wide.waitForFunction(
    (id) => {
      const { cols, rows } = window.__claudenest.sessions[id]().size;
      const text = `${cols}x${rows}`;
      if (window.sizeSeen?.text !== text) window.sizeSeen = { text, at: performance.now() };
      return cols > 120 && performance.now() - window.sizeSeen.at > 1_000;
    },
    id,
  );
  const { size } = await probe(wide, id);
  const page = await logIn(browser, world, { viewport: phone, isMobile: true, hasTouch: true });
  await openSession(page, world, "phone");
  await untilScreen(page, id, `size ${size.cols}x${size.rows}`);
  await page.getByTestId("open-entry").tap();
  const entry = page.getByTestId("native-entry");
  await entry.waitFor();
  const bottom = (testid) => page.getByTestId(testid).evaluate((node) => node.getBoundingClientRect().bottom);
  const KEYBOARD = 336;

  // Android makes the page itself smaller.
  await page.setViewportSize({ width: phone.width, height: phone.height - KEYBOARD });
  await page.waitForFunction(([height]) => innerHeight === height, [phone.height - KEYBOARD]);
  for (const part of ["native-entry", "key-bar"]) assert.ok((await bottom(part)) <= phone.height - KEYBOARD, part);
  await page.setViewportSize(phone);

  // iOS lays the keyboard over the page and tells only the visual viewport.
  await page.evaluate((keyboard) => {
    Object.defineProperty(visualViewport, "height", { configurable: true, get: () => innerHeight - keyboard });
    visualViewport.dispatchEvent(new Event("resize"));
  }, KEYBOARD);
  for (const part of ["native-entry", "key-bar"]) assert.ok((await bottom(part)) <= phone.height - KEYBOARD, part);
  await entry.fill("typed on a phone");
  await page.evaluate(() => {
    delete visualViewport.height;
    visualViewport.dispatchEvent(new Event("resize"));
  });
  assert.ok((await bottom("key-bar")) > phone.height - KEYBOARD, "the room is given back");
  // The desktop's size held all the time: the program was told of no other.
  const sizes = (await probe(wide, id)).history.filter((line) => line.includes("size ")).slice(-1);
  assert.deepEqual((await probe(page, id)).size, size);
  assert.ok(sizes[0].endsWith(`size ${size.cols}x${size.rows}`), sizes[0]);
  assert.deepEqual(page.errors, []);
  await world.agent("session", "kill", "phone");
  await page.context().close();
  await wide.context().close();
});
