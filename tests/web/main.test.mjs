// The main job in a real browser: the real Claude Code on screen in the browser and in `attach`, both alive at once.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { createHash } from "node:crypto";
import { World, desktop, logIn, openSession, phone, probe, startBrowser, untilScreen } from "./world.mjs";

let world, browser;
before(async () => {
  [world, browser] = await Promise.all([World.start(), startBrowser()]);
});
after(async () => {
  await browser?.close();
  await world?.stop();
});

/** The screen's rows. A snapshot may erase where the program wrote blanks: colours are judged by judge.mjs. */
const rows = async (page, id) => (await probe(page, id)).screen.map((row) => row.trimEnd());
const noErrors = (page) => assert.deepEqual(page.errors, []);

const open = (page, name) => openSession(page, world, name);

/** Types a prompt as a person does: Enter comes after the words are on the screen. Together they would be a paste of two lines for Claude Code. */
async function prompt(page, id, text) {
  await page.keyboard.type(text);
  await untilScreen(page, id, text);
  await page.keyboard.press("Enter");
}

test("a prompt typed in the browser is answered in browser and attach, and a permission dialog is answered in attach", async () => {
  await world.do("script_mock", {
    scenario: {
      turns: [
        { content: ["The nest holds **forty-two** eggs."] },
        { content: [{ type: "tool_use", name: "Write", input: { file_path: "${cwd}/eggs.txt", content: "42 eggs\n" } }] },
        { content: ["The eggs are written down."] },
      ],
      after: { content: ["Nothing more."] },
    },
  });
  await world.useClaude("real");
  await world.agent("session", "new", "--name", "nest", "--dir", world.work, "--permission-mode", "default");
  const page = await logIn(browser, world);
  const id = await open(page, "nest");
  await world.do("attach", { name: "nest", as: "terminal" });
  await untilScreen(page, id, "❯");
  await world.do("until_screen", { as: "terminal", text: "❯" });

  await page.locator(".xterm-helper-textarea").first().focus();
  await prompt(page, id, "How many eggs are in the nest?");
  await untilScreen(page, id, "forty-two eggs");
  await world.do("until_screen", { as: "terminal", text: "forty-two eggs" });

  await prompt(page, id, "Write it down.");
  await untilScreen(page, id, "Do you want");
  await world.do("until_screen", { as: "terminal", text: "Do you want" });
  // A dialog that has only just appeared takes no keys yet (a guard of Claude Code's): a person presses again.
  for (let press = 1; ; press++) {
    await world.do("type", { as: "terminal", text: "1" });
    const answered = await untilScreen(page, id, "The eggs are written down.", 3_000).catch(() => null);
    if (answered) break;
    assert.ok(press < 10, "the dialog took no key");
  }
  await world.do("until_screen", { as: "terminal", text: "The eggs are written down." });
  assert.equal(await world.do("read_file", { path: `${world.work}/eggs.txt` }), "42 eggs\n");

  await untilScreen(page, id, "? for shortcuts");
  const before = await rows(page, id);
  await page.reload();
  await untilScreen(page, id, "? for shortcuts");
  assert.deepEqual(await rows(page, id), before, "a reload shows the same screen");

  await page.locator(".xterm-helper-textarea").first().focus();
  await page.keyboard.press("Control+u");
  await prompt(page, id, "/exit");
  const ended = JSON.parse(await world.agent("session", "wait", "nest", "--json"));
  assert.equal(ended.exit.code, 0);
  noErrors(page);
  await world.do("hang_up", { as: "terminal" });
  await page.context().close();
});

test("whoever joins late sees the same screen as one that never left", async () => {
  const script = "raw; alt; print \\e[22\\p5H\\e[1\\p31mbottom\\sline\\e[0m; wait go; print \\e[24\\p1HGONE; echo bye; exit 0";
  await world.fakeSession("late", script);
  const first = await logIn(browser, world);
  const id = await open(first, "late");
  await untilScreen(first, id, "bottom line");
  const second = await first.context().newPage();
  await open(second, "late");
  await untilScreen(second, id, "bottom line");
  assert.deepEqual(await rows(second, id), await rows(first, id));
  await first.locator(".xterm-helper-textarea").first().focus();
  await first.keyboard.type("go");
  for (const page of [first, second]) await untilScreen(page, id, "GONE");
  assert.deepEqual(await rows(second, id), await rows(first, id));
  noErrors(first);
  await first.context().close();
});

test("sixty thousand lines and a megabyte paste pass through the browser unchanged", async () => {
  const [printed, pasted] = [`${world.home}/printed`, `${world.home}/pasted`];
  const paste = Array.from({ length: 1 << 20 }, (_, n) => String.fromCharCode(97 + (Math.imul(n, 2654435761) >>> 28))).join("");
  await world.fakeSession(
    "bulk",
    `raw; print +; wait go; lines 60000 ${world.home}/lines; print DONE; total ${printed}; read ${paste.length} ${pasted}; print THANKS; echo bye; exit 0`,
  );
  // Every byte, from the first one.
  const page = await logIn(browser, world, { prefs: { isWhole: true } });
  const id = await open(page, "bulk");
  await page.evaluate((id) => window.__claudenest.type(id, "go"), id);
  await untilScreen(page, id, "DONE");
  const [bytes, digest] = (await world.do("read_file", { path: printed })).trim().split(" ");
  const got = await probe(page, id);
  assert.deepEqual([got.from.offset, got.bytes, got.sha256, got.snapshots], [0, Number(bytes), digest, 0]);
  assert.ok(got.bytes > 2_000_000, "sixty thousand lines");
  await page.evaluate(([id, text]) => window.__claudenest.paste(id, text), [id, paste]);
  await untilScreen(page, id, "THANKS");
  const wanted = createHash("sha256").update(paste).digest("hex");
  assert.equal(await world.do("read_file", { path: pasted }), `${paste.length} ${wanted}\n`);
  // The same after a reload, from the machine's memory of it.
  await page.reload();
  await untilScreen(page, id, "THANKS");
  const again = await probe(page, id);
  assert.deepEqual([again.from.offset, again.bytes], [0, Number(bytes) + "THANKS".length]);
  noErrors(page);
  await page.context().close();
});

test("a phone never reflows a desktop", async () => {
  await world.fakeSession("sizes", "raw; size; exit 0");
  const wide = await logIn(browser, world, { viewport: desktop });
  const id = await open(wide, "sizes");
  // A session begins with 120 columns; the desktop, wider than that, takes the size a moment later.
  await wide.waitForFunction((id) => window.__claudenest.sessions[id]().size.cols > 120, id);
  const size = (await probe(wide, id)).size;
  const narrow = await logIn(browser, world, { viewport: phone, isMobile: true, hasTouch: true });
  await open(narrow, "sizes");
  await untilScreen(narrow, id, `size ${size.cols}x${size.rows}`);
  assert.deepEqual((await probe(narrow, id)).size, size);
  assert.deepEqual((await probe(wide, id)).size, size);
  await world.agent("session", "kill", "sizes");
  await wide.context().close();
  await narrow.context().close();
});

test("the page comes back by itself when the relay was killed", async () => {
  const file = `${world.home}/poured`;
  await world.fakeSession("storm", `raw; print +; wait go; pour ${file}; print ALL\\sPOURED; echo bye; exit 0`);
  const page = await logIn(browser, world);
  const id = await open(page, "storm");
  await page.evaluate((id) => window.__claudenest.type(id, "go"), id);
  for (let round = 0; round < 3; round++) {
    const { bytes } = await probe(page, id);
    await page.waitForFunction(([id, bytes]) => window.__claudenest.sessions[id]().bytes > bytes + 3000, [id, bytes], { timeout: 60_000 });
    await world.do("kill_relay");
    await world.do("resume_relay");
  }
  await page.waitForFunction((id) => window.__claudenest.sessions[id]().status !== "closed", id);
  const { bytes } = await probe(page, id);
  await page.waitForFunction(([id, bytes]) => window.__claudenest.sessions[id]().bytes > bytes + 3000, [id, bytes], { timeout: 60_000 });
  await page.evaluate((id) => window.__claudenest.type(id, "stop"), id);
  await untilScreen(page, id, "ALL POURED");
  await page.context().close();
});
