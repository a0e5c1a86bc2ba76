import { describe, expect, it } from "vitest";

import { visibleText } from "./visible";

describe("text of strangers", () => {
  it("shows what cannot be seen, and counts it", () => {
    const { text, hidden, characters, lines, isCut } = visibleText("rm\u202e -rf\u200b /\n\tx\ufeff", 80);
    expect(text).toBe("rm⟨U+202E⟩ -rf⟨U+200B⟩ /⏎⇥x⟨U+FEFF⟩");
    expect({ hidden, characters, lines, isCut }).toEqual({
      hidden: 3,
      characters: 14,
      lines: 2,
      isCut: false,
    });
  });

  it("cuts between characters and counts the rest", () => {
    expect(visibleText("👩🚀é漢\u202e", 2)).toEqual({
      text: "👩🚀",
      isCut: true,
      characters: 5,
      hidden: 1,
      lines: 1,
    });
    expect(visibleText("one\ntwo\n", 80).lines).toBe(2);
  });
});
