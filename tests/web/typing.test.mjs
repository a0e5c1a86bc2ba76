// What a keyboard, an input method and a clipboard really send: each character once, each paste whole.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, test } from "node:test";
import { World, logIn, startBrowser, untilScreen } from "./world.mjs";

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
