// Output that was made to harm a viewer: nothing types into the program, nothing reaches the clipboard or another page
// without a person.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, test } from "node:test";
import { World, focusTerminal, idOf, logIn, openSession, probe, shoot, startBrowser, untilScreen } from "./world.mjs";

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
  // It is offered, once.
  await page.getByTestId("copy-offer-text").filter({ hasText: "from the program" }).waitFor();
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

test("what a program wants to copy is copied by a person's click, by each viewer for itself, and never again", async () => {
  const offer = (text) => `\\e]52\\pc\\p${Buffer.from(text).toString("base64")}\\a`;
  const evil = "cargo publish\u202e\u200b <img src=x onerror=alert(1)>\n\x1b[201~rm -rf ~\n";
  await world.fakeSession(
    "offers",
    `raw; print ready; wait one; print ${offer("first")}ONE; wait two; print ${offer(evil)}TWO; wait three; print ${offer("x".repeat(200))}THREE; echo bye; exit 0`,
  );
  const [page, other] = await Promise.all([1, 2].map(() => logIn(browser, world, { permissions: ["clipboard-read", "clipboard-write"] })));
  const id = await openSession(page, world, "offers");
  await openSession(other, world, "offers");
  await world.do("attach", { name: "offers", as: "cli" });
  for (const one of [page, other]) await untilScreen(one, id, "ready");
  const clipboard = (one) => one.evaluate(() => navigator.clipboard.readText());
  const write = (one, text) => one.evaluate((text) => navigator.clipboard.writeText(text), text);
  await page.bringToFront();
  await write(page, "mine");

  await page.evaluate((id) => window.__claudenest.type(id, "one"), id);
  const text = (one) => one.getByTestId("copy-offer-text");
  for (const one of [page, other]) await text(one).filter({ hasText: "first" }).waitFor();
  // The size of the program is what it was: the offer takes no room.
  const { size } = await probe(page, id);
  await page.bringToFront();
  assert.equal(await clipboard(page), "mine");
  await page.getByTestId("copy-offer-take").click();
  await page.getByTestId("notice-info").waitFor();
  assert.equal(await clipboard(page), "first");
  await page.getByTestId("copy-offer").waitFor({ state: "detached" });
  // The other person's offer is still there; waved away, it is gone, and nothing was copied.
  await other.bringToFront();
  await write(other, "theirs");
  await other.getByTestId("copy-offer-close").click();
  await other.getByTestId("copy-offer").waitFor({ state: "detached" });
  assert.equal(await clipboard(other), "theirs");
  // A terminal of the machine got nothing of it; it would have shown or obeyed it.
  await world.do("until_screen", { as: "cli", text: "ONE" });

  await page.bringToFront();
  await page.evaluate((id) => window.__claudenest.type(id, "two"), id);
  await text(page).filter({ hasText: "cargo publish⟨U+202E⟩⟨U+200B⟩ <img src=x onerror=alert(1)>⏎[201~rm -rf ~⏎" }).waitFor();
  assert.match(await page.getByTestId("copy-offer").textContent(), /59 characters.*2 of them invisible.*2 lines/s);
  await shoot(page, "copy-offer");
  await page.getByTestId("copy-offer-take").click();
  await page.getByTestId("copy-offer").waitFor({ state: "detached" });
  assert.equal(await clipboard(page), "cargo publish\u202e\u200b <img src=x onerror=alert(1)>\n[201~rm -rf ~\n");

  await page.evaluate((id) => window.__claudenest.type(id, "three"), id);
  await text(page).filter({ hasText: `${"x".repeat(160)}…` }).waitFor();
  assert.deepEqual((await probe(page, id)).size, size);
  // Whoever comes later is shown the same output again, and asked nothing.
  for (const one of [page, other]) {
    await one.reload();
    await untilScreen(one, id, "THREE");
    await one.waitForFunction((id) => window.__claudenest.sessions[id]().status.phase === "live", id);
  }
  await focusTerminal(page);
  await page.keyboard.type("typed behind it");
  for (const one of [page, other]) {
    await untilScreen(one, id, "typed behind it");
    assert.equal(await one.getByTestId("copy-offer").count(), 0);
    assert.deepEqual(one.errors, []);
    await one.context().close();
  }
  await world.do("hang_up", { as: "cli" });
});

test("a page that is shown again, or loses and finds its focus, types nothing that the program did not ask for", async () => {
  const heard = `${world.home}/focus`;
  // Every mode that makes a terminal report something, switched on where a page attaches late: whole, and as a snapshot.
  const modes = "\\e[?1004h\\e[?1003h\\e[?1006h\\e[?2004h\\e[?2031h\\e[>1u\\e[?1h\\e=";
  for (const [name, before] of Object.entries({ whole: "print short\\r\\n", snapshot: `lines 9000 ${world.home}/lines` })) {
    await world.fakeSession(`focus-${name}`, `raw; ${before}; print ${modes}READY; read 2 ${heard}-${name}; print \\e[?1004lHEARD; echo bye; exit 0`);
    const id = await idOf(world, `focus-${name}`);
    const pages = [];
    for (let n = 0; n < 2; n++) {
      const page = await logIn(browser, world);
      await page.goto(`/sessions/focus-${name}`);
      await untilScreen(page, id, "READY");
      pages.push(page);
    }
    for (const page of pages) {
      await page.reload();
      await untilScreen(page, id, "READY");
      await page.waitForFunction((id) => window.__claudenest.sessions[id]().status.phase === "live", id);
      await page.evaluate(() => window.__claudenest.cut());
      await page.waitForFunction((id) => window.__claudenest.sessions[id]().status.phase !== "live", id);
      await page.waitForFunction((id) => window.__claudenest.sessions[id]().status.phase === "live", id);
    }
    // What the program hears first is a person's. (A click would report the focus and the mouse, as it asked for.)
    await pages[1].evaluate((id) => window.__claudenest.type(id, "ok"), id);
    for (const page of pages) await untilScreen(page, id, "HEARD");
    const digest = createHash("sha256").update("ok").digest("hex");
    assert.equal(await world.do("read_file", { path: `${heard}-${name}` }), `2 ${digest}\n`, name);
    for (const page of pages) {
      assert.deepEqual(page.errors, []);
      await page.context().close();
    }
  }
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
