/** Text of strangers in one line: what cannot be seen is named, what turns the direction of writing does not. */

import { isWithoutPicture } from "./pieces";

const NAMES: Record<string, string> = { "\n": "⏎", "\t": "⇥" };

export interface VisibleText {
  /** The beginning, on one line, with `⟨U+202E⟩` for what cannot be seen. */
  text: string;
  isCut: boolean;
  /** How many characters the whole text has, and how many of them cannot be seen (not counting ends of lines and tabs). */
  characters: number;
  hidden: number;
  lines: number;
}

export function visibleText(whole: string, most: number): VisibleText {
  let text = "";
  let characters = 0;
  let hidden = 0;
  let lines = 1;
  for (const char of whole) {
    characters++;
    if (char === "\n") lines++;
    const isHidden = char !== " " && isWithoutPicture(char) && !(char in NAMES);
    if (isHidden) hidden++;
    if (characters > most) continue;
    const code = (char.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
    text += NAMES[char] ?? (isHidden ? `⟨U+${code}⟩` : char);
  }
  // The end of the last line begins no other.
  if (whole.endsWith("\n")) lines--;
  return { text, isCut: characters > most, characters, hidden, lines };
}
