/** Pairing codes as people type them; the same rules as `PairingCode` in `shared/src/pairing.rs`. */

const ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/** The characters of a code in what somebody typed or pasted; null for one that no code contains. */
export function normaliseChar(char: string): string | null {
  const upper = char.toUpperCase();
  const fixed = upper === "O" ? "0" : upper === "I" || upper === "L" ? "1" : upper;
  return fixed.length === 1 && ALPHABET.includes(fixed) ? fixed : null;
}

/** Reads a whole code; the refusal names what is wrong. */
export function parseCode(
  text: string,
): { code: string } | { problem: "length"; count: number } | { problem: "character"; char: string } {
  let code = "";
  for (const char of text) {
    if (/[\s\-\u2010-\u2015]/u.test(char)) continue;
    const fixed = normaliseChar(char);
    if (fixed === null) return { problem: "character", char };
    code += fixed;
  }
  if (code.length !== 6) return { problem: "length", count: code.length };
  return { code: `${code.slice(0, 3)}-${code.slice(3)}` };
}
