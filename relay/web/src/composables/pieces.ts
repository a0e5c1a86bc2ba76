/**
 * Makes text show what it is: characters that have no picture of their own, or turn the direction of others around, become
 * marks with their code point; letters that look like others are pointed at.
 */

export type Piece =
  | { kind: "text"; text: string }
  /** No picture: shown as its code point. */
  | { kind: "odd"; text: string; name: string }
  /** A letter of another script inside a Latin word. */
  | { kind: "alike"; text: string; name: string };

/** Everything without a picture by its kind, except the space and the two that lay text out. */
const ODD = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\p{Zs}]/u;
/** Marks and fillers that are drawn as nothing: joiner, fillers of Hangul and Khmer, selectors, the blank of Braille. */
const BLANK: readonly (readonly [number, number])[] = [
  [0x34f, 0x34f],
  [0x115f, 0x1160],
  [0x17b4, 0x17b5],
  [0x180b, 0x180f],
  [0x2800, 0x2800],
  [0x3164, 0x3164],
  [0xfe00, 0xfe0f],
  [0xffa0, 0xffa0],
  [0xe0100, 0xe01ef],
];
/** True for a character that shows nothing of itself; ends of lines, tabs and the space are among them. */
export function isWithoutPicture(char: string): boolean {
  const code = char.codePointAt(0) ?? 0;
  return ODD.test(char) || BLANK.some(([from, to]) => code >= from && code <= to);
}
const LAYS_OUT = new Set([" ", "\n", "\t"]);
/** Letters of these scripts have twins in Latin. */
const TWIN = /[\p{Script=Cyrillic}\p{Script=Greek}\p{Script=Armenian}\p{Script=Cherokee}]|[\uff01-\uff5e]/u;
/** Between words, parts of paths and addresses. */
const SEAM = /(?<=[\s/|;&()<>"'=,.:_-])|(?=[\s/|;&()<>"'=,.:_-])/u;
const LATIN = /\p{Script=Latin}/u;

const NAMES: Record<number, string> = {
  0x00: "NUL",
  0x07: "BEL",
  0x08: "BS",
  0x0b: "VT",
  0x0c: "FF",
  0x0d: "CR",
  0x1b: "ESC",
  0x7f: "DEL",
  0x85: "NEL",
  0xa0: "NBSP",
  0xad: "SHY",
  0x200b: "ZWSP",
  0x200c: "ZWNJ",
  0x200d: "ZWJ",
  0x200e: "LRM",
  0x200f: "RLM",
  0x2028: "LS",
  0x2029: "PS",
  0x202a: "LRE",
  0x202b: "RLE",
  0x202c: "PDF",
  0x202d: "LRO",
  0x202e: "RLO",
  0x2060: "WJ",
  0x2066: "LRI",
  0x2067: "RLI",
  0x2068: "FSI",
  0x2069: "PDI",
  0xfeff: "BOM",
};

function codePoint(char: string): string {
  const code = char.codePointAt(0) ?? 0;
  return `U+${code.toString(16).toUpperCase().padStart(4, "0")}`;
}
function nameOf(char: string): string {
  return NAMES[char.codePointAt(0) ?? 0] ?? codePoint(char);
}

/** Cuts a text into what can be seen as it is and what cannot. Joined again, the pieces are the text. */
export function piecesOf(text: string): Piece[] {
  const pieces: Piece[] = [];
  let plain = "";
  const flush = () => {
    if (plain !== "") pieces.push({ kind: "text", text: plain });
    plain = "";
  };
  for (const word of text.split(SEAM)) {
    const hasLatin = LATIN.test(word);
    for (const char of word) {
      const isOdd = !LAYS_OUT.has(char) && isWithoutPicture(char);
      const isAlike = !isOdd && hasLatin && TWIN.test(char);
      if (!isOdd && !isAlike) {
        plain += char;
        continue;
      }
      flush();
      pieces.push(
        isOdd
          ? { kind: "odd", text: char, name: nameOf(char) }
          : { kind: "alike", text: char, name: codePoint(char) },
      );
    }
  }
  flush();
  return pieces;
}

/** True if something in the text is not what it seems. */
export function hasOdd(text: string): boolean {
  return piecesOf(text).some((piece) => piece.kind !== "text");
}
