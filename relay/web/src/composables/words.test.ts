import { describe, expect, it } from "vitest";

import { isValidName } from "./actions";
import { shortPath, splitArgs } from "./text";
import { formatBytes, formatDuration } from "./time";

describe("short forms", () => {
  it("shows durations with two units at most", () => {
    const cases: [number, string][] = [
      [0, "0 s"],
      [-5, "0 s"],
      [59_999, "59 s"],
      [130_000, "2 m 10 s"],
      [3_600_000, "1 h"],
      [3_605_000, "1 h"],
      [3_720_000, "1 h 2 m"],
      [90_000_000, "1 d 1 h"],
    ];
    for (const [ms, text] of cases) expect(formatDuration(ms).replaceAll("\u00a0", " ")).toBe(text);
    expect(formatDuration(90_000_000, "fr")).toContain("j");
  });

  it("shows sizes", () => {
    expect(formatBytes(0).replaceAll("\u00a0", " ")).toBe("0 B");
    expect(formatBytes(1536).replaceAll("\u00a0", " ")).toBe("1.5 KiB");
    expect(formatBytes(64 * 1024 ** 3).replaceAll("\u00a0", " ")).toBe("64 GiB");
  });

  it("shows the last two parts of a path", () => {
    expect(shortPath("/home/alice/code/nest")).toBe("…/code/nest");
    expect(shortPath("/home/alice/code", "/home/alice")).toBe("~/code");
    expect(shortPath("/home/alice", "/home/alice")).toBe("~");
    expect(shortPath("/home/alicebob/x/y", "/home/alice")).toBe("…/x/y");
    expect(shortPath("/")).toBe("/");
  });

  it("splits arguments as a shell does, without expanding", () => {
    expect(splitArgs(`--a "b c" 'd "e"' f\\ g "" $HOME`)).toEqual([
      "--a",
      "b c",
      'd "e"',
      "f g",
      "",
      "$HOME",
    ]);
    expect(splitArgs(`"x\\"y" 'a\\b'`)).toEqual(['x"y', "a\\b"]);
    expect(splitArgs("  ")).toEqual([]);
    expect(splitArgs(`"open`)).toBeNull();
  });

  it("knows session names", () => {
    for (const good of ["fix-login_2.0", "été", "7"]) expect(isValidName(good)).toBe(true);
    for (const bad of ["", "-x", "a b", "a/b", "a\u0007b", "x".repeat(65)])
      expect(isValidName(bad)).toBe(false);
  });
});
