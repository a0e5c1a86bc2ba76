import { Terminal } from "@xterm/headless";
import type { Terminal as FullTerminal } from "@xterm/xterm";
import { describe, expect, it } from "vitest";

import { guardTerminal, offeredText } from "./queries";

const QUERIES = [
  "\x1b[c",
  "\x1b[0c",
  "\x1b[>c",
  "\x1b[=c",
  "\x1b[5n",
  "\x1b[6n",
  "\x1b[?6n",
  "\x1b[?996n",
  "\x1b[?25$p",
  "\x1b[4$p",
  "\x1b[>q",
  "\x1b[?u",
  "\x1b[14t",
  "\x1b[18t",
  "\x1b[21t",
  "\x1bP$qm\x1b\\",
  "\x1bP+q544e\x1b\\",
  "\x1b]4;1;?\x07",
  "\x1b]10;?\x07",
  "\x1b]11;?\x1b\\",
  "\x1b]12;?\x07",
  "\x1b]52;c;?\x07",
  "\x05",
];

function make() {
  const terminal = new Terminal({ allowProposedApi: true });
  const answers: string[] = [];
  const offers: string[] = [];
  terminal.onData((data) => answers.push(data));
  terminal.onBinary((data) => answers.push(data));
  guardTerminal(terminal as unknown as FullTerminal, (text) => offers.push(text));
  const write = (data: string) => new Promise<void>((resolve) => terminal.write(data, resolve));
  return { terminal, answers, offers, write };
}

describe("a viewer", () => {
  it("never answers a query, whole or cut at any byte", async () => {
    const { answers, write } = make();
    for (const query of QUERIES) {
      await write(query);
      for (let cut = 1; cut < query.length; cut++) {
        await write(query.slice(0, cut));
        await write(query.slice(cut));
      }
    }
    expect(answers).toEqual([]);
  });

  it("survives erasing up to the last column of the last row, and erases it", async () => {
    for (const erase of ["\x1b[1J", "\x1b[?1J"]) {
      const { terminal, write } = make();
      await write(`above\x1b[${terminal.rows};${terminal.cols}Hx${erase}`);
      await write("\x1b[Halive");
      const { active } = terminal.buffer;
      expect(active.getLine(0)?.translateToString(true)).toBe("alive");
      expect(active.getLine(terminal.rows - 1)?.translateToString(true)).toBe("");
    }
  });

  it("brings a saved cursor back to its row, however much history was erased", async () => {
    const { terminal, write } = make();
    await write(`${"\n".repeat(100)}\x1b[5;3H\x1b7\x1b[H\x1b[3J\x1b8`);
    expect([terminal.buffer.active.cursorY, terminal.buffer.active.cursorX]).toEqual([4, 2]);
  });

  it("still obeys what is no query", async () => {
    const { terminal, write } = make();
    await write("\x1b[?2004h\x1b[22t\x1b]10;#ff0000\x07\x1b[3;5Hx\x1b[!p");
    expect(terminal.buffer.active.getLine(2)?.translateToString(true)).toBe("    x");
  });

  it("offers what the machine says that a program wants to copy, and obeys no OSC 52", async () => {
    const { offers, write } = make();
    await write(`\x1b]952;${btoa("hello")}\x07\x1b]952;!!!\x07\x1b]952;\x07\x1b]52;c;${btoa("evil")}\x07`);
    expect(offers).toEqual(["hello"]);
  });

  it("offers text without control characters, and only text of a sensible length", () => {
    const base64 = (text: string) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));
    expect(offeredText(base64("a\x1b[201~\tb\r\nc\rd\u0085\x07e é"))).toBe("a[201~\tb\nc\nde é");
    expect(offeredText("/w==")).toBeNull();
    expect(offeredText(base64("\x1b\x07"))).toBeNull();
    expect(offeredText("QUJD".repeat(16_384))).toBe("ABC".repeat(16_384));
    expect(offeredText("QUJD".repeat(16_385))).toBeNull();
  });
});
