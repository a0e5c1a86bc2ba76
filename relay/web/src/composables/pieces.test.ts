import { describe, expect, it } from "vitest";

import { hasOdd, piecesOf } from "./pieces";

const shown = (text: string) =>
  piecesOf(text)
    .map((piece) => (piece.kind === "text" ? piece.text : `⟨${piece.name}⟩`))
    .join("");

describe("text that shows what it is", () => {
  it("marks what has no picture or turns others around", () => {
    expect(shown("ls \u202eexe.sh\u2069")).toBe("ls ⟨RLO⟩exe.sh⟨PDI⟩");
    expect(shown("a\u0000b\u001b[2Jc\u0085\u200bd\r")).toBe("a⟨NUL⟩b⟨ESC⟩[2Jc⟨NEL⟩⟨ZWSP⟩d⟨CR⟩");
    expect(shown("x\u00a0y\u3000z\u3164\u{e0041}\ufe0f\u{e0100}")).toBe(
      "x⟨NBSP⟩y⟨U+3000⟩z⟨U+3164⟩⟨U+E0041⟩⟨U+FE0F⟩⟨U+E0100⟩",
    );
    expect(shown("\ud800 alone, \u{f0000} private, \u{378} nobody's")).toBe(
      "⟨U+D800⟩ alone, ⟨U+F0000⟩ private, ⟨U+0378⟩ nobody's",
    );
  });

  it("points at letters that look like Latin ones inside a Latin word, and at no others", () => {
    expect(shown("curl https://gіthub.com/ａ")).toBe("curl https://g⟨U+0456⟩thub.com/⟨U+FF41⟩");
    expect(hasOdd("cat отчёт.txt && echo привет мир")).toBe(false);
  });

  it("leaves ordinary text of all peoples alone, and loses nothing", () => {
    for (const text of ["git commit -m 'Zoé’s fix'\n\tok", "計算機 حاسوب 🦀", "a\tb\nc"]) {
      expect(hasOdd(text), text).toBe(false);
    }
    for (const text of ["a\u0000\u202eb/\ud800;ё", "", "\u200b"]) {
      expect(
        piecesOf(text)
          .map((piece) => piece.text)
          .join(""),
      ).toBe(text);
    }
  });
});
