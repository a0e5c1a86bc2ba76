import { Terminal } from "@xterm/headless";
import { describe, expect, it } from "vitest";

import { OrderedTerminal } from "./ordered";

const utf8 = new TextEncoder();
const size = { cols: 20, rows: 4 };
const parsed = (ordered: OrderedTerminal) => new Promise<void>((done) => ordered.run(done));
const line = (terminal: Terminal, row = 0) => terminal.buffer.active.getLine(row)?.translateToString(true);

describe("a terminal in order", () => {
  it("forgets a sequence or character that was cut when it is reset", async () => {
    for (const cut of ["x\x1b", "x\x1b[", "x\x1b[12;", "x\x1b]0;title", "x\x1bP1$r", "x\x1b_app"]) {
      const terminal = new Terminal({ ...size, allowProposedApi: true });
      const ordered = new OrderedTerminal(terminal);
      ordered.write(utf8.encode(cut));
      ordered.reset();
      ordered.write(utf8.encode("END"));
      await parsed(ordered);
      expect(line(terminal), JSON.stringify(cut)).toBe("END");
    }
    const terminal = new Terminal({ ...size, allowProposedApi: true });
    const ordered = new OrderedTerminal(terminal);
    ordered.write(utf8.encode("漢").subarray(0, 2));
    ordered.reset();
    ordered.write(utf8.encode("END"));
    await parsed(ordered);
    expect(line(terminal)).toBe("END");
  });

  it("keeps resizes, bytes and actions in order, however long the bytes take", async () => {
    const terminal = new Terminal({ ...size, scrollback: 100, allowProposedApi: true });
    const ordered = new OrderedTerminal(terminal);
    const seen: string[] = [];
    ordered.write(utf8.encode(`${"\x1b[512S\r\n".repeat(3_000)}wide`), () => seen.push("written"));
    ordered.run(() => seen.push(`${terminal.cols} columns`));
    ordered.resize({ cols: 30, rows: 4 });
    ordered.write(utf8.encode("\r\nafter"), () => seen.push(`${terminal.cols} columns`));
    await parsed(ordered);
    expect(seen).toEqual(["written", "20 columns", "30 columns"]);
  });

  it("gives up what waits, and says for how long it has waited", async () => {
    const terminal = new Terminal({ ...size, allowProposedApi: true });
    const ordered = new OrderedTerminal(terminal);
    expect(ordered.lagMs).toBe(0);
    const done: string[] = [];
    ordered.write(utf8.encode("\x1bc".repeat(20_000)), () => done.push("bomb"));
    ordered.write(utf8.encode("more"), () => done.push("more"));
    await new Promise((later) => setTimeout(later, 5));
    expect(ordered.lagMs).toBeGreaterThan(0);
    expect(ordered.waitingBytes).toBe(40_004);
    ordered.resize({ cols: 30, rows: 4 });
    expect(ordered.drop()).toBe(40_004);
    expect(ordered.waitingBytes).toBe(0);
    ordered.reset();
    ordered.write(utf8.encode("END"), () => done.push("end"));
    await parsed(ordered);
    expect(done).toEqual(["end"]);
    expect(line(terminal)).toBe("END");
    // Only bytes are given up.
    expect(terminal.cols).toBe(30);
  });

  it("says after each slice that it got on", async () => {
    const ordered = new OrderedTerminal(new Terminal({ ...size, allowProposedApi: true }));
    let slices = 0;
    ordered.onSlice = () => slices++;
    // A reset is much work: a few of them make a slice.
    ordered.write(utf8.encode("\x1bc".repeat(2_000)));
    await parsed(ordered);
    expect(slices).toBeGreaterThan(100);
  });
});
