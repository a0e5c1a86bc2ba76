import { describe, expect, it } from "vitest";

import {
  clampSize,
  decodeFrame,
  encodeFrame,
  encodeSize,
  exitOf,
  type Frame,
  FrameKind,
  sizeOf,
  uuidBytes,
  uuidText,
} from "./frame";

const text = (value: string) => new TextEncoder().encode(value);

function frame(kind: FrameKind, payload: Uint8Array): Frame {
  return {
    kind,
    flags: 1,
    channel: 0x0203,
    epoch: 0x04050607,
    session: Uint8Array.from({ length: 16 }, (_, index) => 0xa0 + index),
    offset: 0x1112131415161718n,
    payload,
  };
}

const header = (kind: number) => [
  ...[kind, 1, 0x03, 0x02, 0x07, 0x06, 0x05, 0x04],
  ...Array.from({ length: 16 }, (_, index) => 0xa0 + index),
  ...[0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11],
];

describe("frames", () => {
  it("has the golden bytes of every kind", () => {
    const cases: [FrameKind, Uint8Array][] = [
      [1, text("\x1b[1mhi")],
      [2, text("\x78\x00\x28\x00\x1b[H")],
      [3, text("y\r")],
      [4, text("read_only")],
      [5, text("\x78\x00\x28\x00")],
      [6, text("\x00\x07")],
      [7, text("")],
    ];
    for (const [kind, payload] of cases) {
      const golden = Uint8Array.from([...header(kind), ...payload]);
      expect(encodeFrame(frame(kind, payload)), `kind ${kind}`).toEqual(golden);
      expect(decodeFrame(golden)).toEqual(frame(kind, payload));
      // A view into a larger buffer decodes the same.
      const shifted = new Uint8Array(golden.length + 3);
      shifted.set(golden, 3);
      expect(decodeFrame(shifted.subarray(3))).toEqual(frame(kind, payload));
    }
  });

  it("refuses every malformed class", () => {
    expect(() => decodeFrame(new Uint8Array(0))).toThrow("shorter");
    expect(() => decodeFrame(new Uint8Array(31).fill(1))).toThrow("shorter");
    for (const kind of [0, 8, 255]) {
      const bytes = new Uint8Array(32);
      bytes[0] = kind;
      expect(() => decodeFrame(bytes)).toThrow(`unknown frame kind ${kind}`);
    }
    const limits = [
      [1, 64 * 1024],
      [3, 64 * 1024],
      [2, 1024 * 1024 + 4],
      [5, 4],
      [6, 2],
      [7, 0],
    ] as const;
    for (const [kind, limit] of limits) {
      const bytes = new Uint8Array(32 + limit + 1);
      bytes[0] = kind;
      expect(() => decodeFrame(bytes), `kind ${kind}`).toThrow("above the limit");
      expect(() => encodeFrame(frame(kind, new Uint8Array(limit + 1)))).toThrow("above the limit");
    }
    for (const [kind, size] of [
      [5, 3],
      [6, 1],
      [2, 3],
      [6, 0],
    ] as const) {
      const bytes = new Uint8Array(32 + size);
      bytes[0] = kind;
      expect(() => decodeFrame(bytes), `kind ${kind}`).toThrow("malformed");
    }
  });

  it("round-trips exits, sizes and ids", () => {
    expect(exitOf(frame(FrameKind.Exit, Uint8Array.of(0, 7)))).toEqual({ kind: "code", code: 7 });
    expect(exitOf(frame(FrameKind.Exit, Uint8Array.of(1, 9)))).toEqual({ kind: "signal", signal: 9 });
    expect(exitOf(frame(FrameKind.Exit, Uint8Array.of(2, 0)))).toEqual({ kind: "lost" });
    const size = { cols: 320, rows: 24 };
    expect(sizeOf(frame(FrameKind.Resize, encodeSize(size)))).toEqual(size);
    expect(clampSize(0, 9999)).toEqual({ cols: 2, rows: 300 });
    expect(clampSize(NaN, 24.9)).toEqual({ cols: 2, rows: 24 });
    const id = "0191e6a5-0000-7000-8000-0000deadbeef";
    expect(uuidText(uuidBytes(id))).toBe(id);
    expect(() => uuidBytes("no id")).toThrow();
  });
});
