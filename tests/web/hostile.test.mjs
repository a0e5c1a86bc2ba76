// Output that was made to harm a viewer: nothing types into the program, nothing reaches the clipboard or another page
// without a person.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, test } from "node:test";
import { World, focusTerminal, idOf, logIn, openSession, probe, startBrowser, untilScreen } from "./world.mjs";

let world, browser;
before(async () => {
  [world, browser] = await Promise.all([World.start(), startBrowser()]);
});
after(async () => {
  await browser?.close();
  await world?.stop();
});

test("three viewers, fifty query triples: one answer each while live, none on reload, and no input that nobody typed", async () => {
  const heard = `${world.home}/heard`;
  await world.fakeSession("asks", `raw; print ready; wait go; queries 50; print ASKED; read 3 ${heard}; print HEARD; echo bye; exit 0`);
  const id = await idOf(world, "asks");
  const pages = [];
  for (const prefs of [{}, { isWhole: true }, { isWhole: true }]) {
    const page = await logIn(browser, world, { prefs });
    await openSession(page, world, "asks");
    await untilScreen(page, id, "ready");
    pages.push(page);
  }
  await pages[0].evaluate((id) => window.__claudenest.type(id, "go"), id);
  for (const page of pages) await untilScreen(page, id, "ASKED");
  const answers = (await probe(pages[0], id)).screen.find((line) => line.includes("answers"));
  assert.match(answers, /answers da=50 dsr=50 version=50/);
  // The queries stand in what is sent again. The first bytes that the program hears after them are a person's.
  for (const page of pages) {
    await page.reload();
    await untilScreen(page, id, "ASKED");
    await page.waitForFunction((id) => window.__claudenest.sessions[id]().status.phase === "live", id);
  }
  await focusTerminal(pages[1]);
  await pages[1].keyboard.type("xyz");
  await untilScreen(pages[2], id, "HEARD");
  const digest = createHash("sha256").update("xyz").digest("hex");
  assert.equal(await world.do("read_file", { path: heard }), `3 ${digest}\n`);
  for (const page of pages) {
    assert.equal((await probe(page, id)).pendingInputBytes, 0);
    assert.deepEqual(page.errors, []);
    await page.context().close();
  }
});

test("nothing that is printed reaches the clipboard, and nothing of the clipboard the program", async () => {
  const heard = `${world.home}/clipped`;
  const base64 = Buffer.from("from the program").toString("base64");
  const forms = ["c", "p", "", "cps01234567"].map((where) => `\\e]52\\p${where}\\p${base64}\\a\\e]52\\p${where}\\p?\\a`).join("");
  await world.fakeSession("clips", `raw; print ready; wait go; print ${forms}ASKED; read 2 ${heard}; print HEARD; echo bye; exit 0`);
  const page = await logIn(browser, world, { permissions: ["clipboard-read", "clipboard-write"] });
  const id = await openSession(page, world, "clips");
  await untilScreen(page, id, "ready");
  await page.evaluate(() => navigator.clipboard.writeText("mine"));
  await page.evaluate((id) => window.__claudenest.type(id, "go"), id);
  await untilScreen(page, id, "ASKED");
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), "mine");
  await page.reload();
  await untilScreen(page, id, "ASKED");
  await focusTerminal(page);
  await page.keyboard.type("ok");
  await untilScreen(page, id, "HEARD");
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), "mine");
  assert.equal(await world.do("read_file", { path: heard }), `2 ${createHash("sha256").update("ok").digest("hex")}\n`);
  await page.context().close();
});

test("a title is shown as text, without controls, and never becomes the page's", async () => {
  await world.fakeSession("titles", "raw; print \\e]2\\p<img\\ssrc=x\\sonerror=alert(1)>\\x01\\a\\e]0\\pevil\\s\\u202egnp\\aTITLED; echo bye; exit 0");
  const page = await logIn(browser, world);
  const id = await openSession(page, world, "titles");
  await untilScreen(page, id, "TITLED");
  assert.match(await page.title(), /^[●◆◐] titles · ClaudeNest$/);
  const shown = await page.evaluate(() => document.body.innerHTML);
  assert.ok(!shown.includes("<img src=\"x\""), "no markup");
  assert.deepEqual(page.errors, []);
  await page.context().close();
});
