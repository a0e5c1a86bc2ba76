// What a keyboard, an input method and a clipboard really send: each character once, each paste whole.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, test } from "node:test";
import { World, idOf, logIn, phone, probe, startBrowser, untilScreen } from "./world.mjs";

let world, browser;
before(async () => {
  [world, browser] = await Promise.all([World.start(), startBrowser()]);
});
after(async () => {
  await browser?.close();
  await world?.stop();
});

async function open(name, script) {
  await world.fakeSession(name, script);
  const id = JSON.parse(await world.agent("session", "show", name, "--json")).id;
  const page = await logIn(browser, world);
  await page.goto(`/sessions/${name}`);
  await untilScreen(page, id, "+");
  await page.locator(".xterm-helper-textarea").first().focus();
  return { page, id };
}

test("composed characters and dead keys are sent once", async () => {
  const typed = "aé日本b";
  const file = `${world.home}/composed`;
  const { page, id } = await open("composed", `raw; print +; read ${Buffer.byteLength(typed)} ${file}; print GOT; echo bye; exit 0`);
  const cdp = await page.context().newCDPSession(page);
  await page.keyboard.type("a");
  for (const [steps, text] of [
    [["´"], "é"],
    [["n", "に", "にほん", "日本"], "日本"],
  ]) {
    for (const step of steps) {
      await cdp.send("Input.imeSetComposition", { text: step, selectionStart: step.length, selectionEnd: step.length });
    }
    await cdp.send("Input.insertText", { text });
  }
  await page.keyboard.type("b");
  await untilScreen(page, id, "GOT");
  const digest = createHash("sha256").update(typed).digest("hex");
  assert.equal(await world.do("read_file", { path: file }), `${Buffer.byteLength(typed)} ${digest}\n`);
  await page.context().close();
});

/** A paste as the browser makes one. */
const paste = (page, text) =>
  page.evaluate((text) => {
    const clipboardData = new DataTransfer();
    clipboardData.setData("text/plain", text);
    document.activeElement.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
  }, text);

test("a megabyte is pasted unchanged, and more only after a question", async () => {
  const text = "0123456789abcdef".repeat(65_536);
  const file = `${world.home}/pasted`;
  const { page, id } = await open("pasted", `raw; print +; read ${text.length * 2 + 1} ${file}; print GOT; echo bye; exit 0`);
  await paste(page, text);
  await paste(page, `${text}!`);
  await page.getByRole("dialog").getByRole("button", { name: "Paste" }).click();
  await untilScreen(page, id, "GOT");
  const digest = createHash("sha256").update(`${text}${text}!`).digest("hex");
  assert.equal(await world.do("read_file", { path: file }), `${text.length * 2 + 1} ${digest}\n`);
  await page.context().close();
});

test("lines are pasted in brackets where the program asks for it", async () => {
  const wanted = "\x1b[200~one\rtwo\x1b[201~";
  const file = `${world.home}/bracketed`;
  const { page, id } = await open("bracketed", `raw; print \\e[?2004h+; read ${wanted.length} ${file}; print GOT; echo bye; exit 0`);
  await paste(page, "one\ntwo");
  await untilScreen(page, id, "GOT");
  const digest = createHash("sha256").update(wanted).digest("hex");
  assert.equal(await world.do("read_file", { path: file }), `${wanted.length} ${digest}\n`);
  await page.context().close();
});

/** People are slower than a program: the page gets a moment after each key. */
const moment = (page) => page.evaluate(() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0))));

/** A letter as an Android keyboard sends it: the key has no name, the text comes by itself. */
async function androidType(page, cdp, text) {
  for (const letter of text) {
    await cdp.send("Input.dispatchKeyEvent", { type: "rawKeyDown", key: "Unidentified", windowsVirtualKeyCode: 229 });
    await cdp.send("Input.insertText", { text: letter });
    await cdp.send("Input.dispatchKeyEvent", { type: "keyUp", key: "Unidentified", windowsVirtualKeyCode: 229 });
    await moment(page);
  }
}
/** A word as an Android keyboard composes it: each letter grows it, a space ends it. */
async function androidCompose(page, cdp, word) {
  for (let end = 1; end <= word.length; end++) {
    await cdp.send("Input.dispatchKeyEvent", { type: "rawKeyDown", key: "Unidentified", windowsVirtualKeyCode: 229 });
    await cdp.send("Input.imeSetComposition", { text: word.slice(0, end), selectionStart: end, selectionEnd: end });
    await cdp.send("Input.dispatchKeyEvent", { type: "keyUp", key: "Unidentified", windowsVirtualKeyCode: 229 });
    await moment(page);
  }
  await cdp.send("Input.insertText", { text: word });
  await moment(page);
}

test("an Android keyboard's unnamed keys and composed words are sent once", async () => {
  const typed = "abc hello là";
  const file = `${world.home}/android`;
  const size = Buffer.byteLength(typed);
  await world.fakeSession("android", `raw; print +; read ${size} ${file}; print GOT; echo bye; exit 0`);
  const id = await idOf(world, "android");
  const page = await logIn(browser, world, { viewport: phone, isMobile: true, hasTouch: true });
  await page.goto("/sessions/android");
  await untilScreen(page, id, "+");
  await page.locator(".xterm-helper-textarea").first().focus();
  const cdp = await page.context().newCDPSession(page);
  await androidType(page, cdp, "abc ");
  await androidCompose(page, cdp, "hello");
  await androidType(page, cdp, " l");
  await androidCompose(page, cdp, "à");
  await untilScreen(page, id, "GOT");
  assert.equal(await world.do("read_file", { path: file }), `${size} ${createHash("sha256").update(typed).digest("hex")}\n`);
  assert.equal((await probe(page, id)).pendingInputBytes, 0);
  await page.context().close();
});

test("what is composed in the phone's own text field is sent once, also when Send comes before the end of it", async () => {
  const typed = "écrit 日本 ok\r";
  const file = `${world.home}/entry`;
  const size = Buffer.byteLength(typed);
  await world.fakeSession("entry", `raw; print +; read ${size} ${file}; print GOT; echo bye; exit 0`);
  const id = await idOf(world, "entry");
  const page = await logIn(browser, world, { viewport: phone, isMobile: true, hasTouch: true });
  await page.goto("/sessions/entry");
  await untilScreen(page, id, "+");
  await page.getByTestId("open-entry").tap();
  await page.getByTestId("native-entry").focus();
  const cdp = await page.context().newCDPSession(page);
  await androidCompose(page, cdp, "écrit");
  await androidType(page, cdp, " ");
  for (const step of ["n", "に", "日本"]) {
    await cdp.send("Input.imeSetComposition", { text: step, selectionStart: step.length, selectionEnd: step.length });
  }
  await cdp.send("Input.insertText", { text: "日本" });
  await androidType(page, cdp, " o");
  // Still being composed when the button is touched.
  await cdp.send("Input.imeSetComposition", { text: "k", selectionStart: 1, selectionEnd: 1 });
  await page.getByRole("button", { name: "Send", exact: true }).tap();
  await untilScreen(page, id, "GOT");
  assert.equal(await world.do("read_file", { path: file }), `${size} ${createHash("sha256").update(typed).digest("hex")}\n`);
  assert.equal(await page.getByTestId("native-entry").inputValue(), "");
  await page.context().close();
});
