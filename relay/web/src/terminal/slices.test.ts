import { Terminal } from "@xterm/headless";
import { describe, expect, it } from "vitest";

import { slicesOf } from "./slices";

const utf8 = new TextEncoder();
const size = { cols: 20, rows: 5 };
const sliced = (text: string) => [...slicesOf(utf8.encode(text), size)];
const joined = (slices: Uint8Array[]) => slices.map((slice) => new TextDecoder().decode(slice)).join("");

async function screenOf(pieces: Uint8Array[]): Promise<string> {
  const terminal = new Terminal({ ...size, scrollback: 50, allowProposedApi: true });
  for (const piece of pieces) await new Promise<void>((done) => terminal.write(piece, done));
  const { active } = terminal.buffer;
  const lines = Array.from({ length: active.length }, (_, row) =>
    active.getLine(row)?.translateToString(true),
  );
  return JSON.stringify([lines, active.cursorX, active.cursorY]);
}

describe("slices", () => {
  it("are all of the bytes, one slice for ordinary output", () => {
    const text = "plain \x1b[1;31mred\x1b[0m\r\n漢字 \x1b[3S\x1b[2L\x1b]2;title\x07".repeat(20);
    expect(sliced(text)).toHaveLength(1);
    expect(joined(sliced(text))).toBe(text);
    expect(sliced("")).toHaveLength(1);
    expect(joined(sliced("x".repeat(200_000)))).toHaveLength(200_000);
    for (const cut of ["\x1b", "\x1b[", "\x1b[51", "\x1b[?104"]) expect(joined(sliced(cut))).toBe(cut);
  });

  it("lower numbers to what the screen can show, without another length", () => {
    expect(joined(sliced("\x1b[0000000512Sx\x1b[512@\x1b[4L"))).toBe("\x1b[0000000005Sx\x1b[020@\x1b[4L");
    // Other sequences with these finals mean something else.
    const other = "\x1b[?512S\x1b[512;3T\x1b[512 @\x1b[38;5;300m\x1b[512b\x1b[512A";
    expect(joined(sliced(other))).toBe(other);
  });

  it("change nothing on the screen", async () => {
    const fill = Array.from({ length: 9 }, (_, n) => `line ${n} 漢字`).join("\r\n");
    for (const region of ["", "\x1b[2;4r"]) {
      for (const last of "STLM@PXIZb") {
        const text = `${fill}${region}\x1b[3;7H\x1b[512${last}y\x1b[2;2H\x1b[300${last}z`;
        expect(await screenOf(sliced(text)), `${region} ${last}`).toBe(await screenOf([utf8.encode(text)]));
      }
    }
  });

  it("hold little work each", () => {
    for (const bomb of ["\x1b[512S", "\x1b[512b", "\x1bc", "\x1b[2J", "\x1b[?1049h\x1b[?1049l", "\x1b#8"]) {
      const slices = [...slicesOf(utf8.encode(bomb.repeat(2_000)), { cols: 200, rows: 50 })];
      expect(slices.length, JSON.stringify(bomb)).toBeGreaterThan(50);
      expect(joined(slices)).toHaveLength(bomb.length * 2_000);
    }
  });
});
