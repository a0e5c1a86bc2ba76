// The judge of terminal fidelity: xterm.js itself, without a browser.
//
//   node judge.mjs COLS ROWS FILE…    prints one JSON array: the screen after the bytes of each FILE, on a terminal of its own.
//
// A screen: rows of [text, style] runs, cursor, which grid is shown, and the modes that a viewer needs.
import { readFileSync } from "node:fs";
import { newTerminal, written } from "./xterm.mjs";

const [cols, rows, ...files] = process.argv.slice(2);

async function screen(file) {
  const terminal = newTerminal(Number(cols), Number(rows), { scrollback: 0 });
  await written(terminal, readFileSync(file));
  const buffer = terminal.buffer.active;
  const lines = [];
  for (let y = 0; y < terminal.rows; y++) {
    const line = buffer.getLine(buffer.baseY + y);
    const runs = [];
    for (let x = 0; x < terminal.cols; x++) {
      const cell = line.getCell(x);
      if (cell.getWidth() === 0) continue;
      const text = cell.getChars() || " ";
      // Nobody sees the colour, weight or slant of a blank without lines and without inversion.
      const isBlank = text === " " && !cell.isUnderline() && !cell.isInverse() && !cell.isStrikethrough();
      const style = [
        isBlank ? 0 : cell.getFgColorMode(),
        isBlank ? -1 : cell.getFgColor(),
        cell.getBgColorMode(),
        cell.getBgColor(),
        isBlank ? 0 : cell.isBold(),
        isBlank ? 0 : cell.isDim(),
        isBlank ? 0 : cell.isItalic(),
        cell.isUnderline(),
        cell.isInverse(),
        isBlank ? 0 : cell.isInvisible(),
        cell.isStrikethrough(),
      ].join(",");
      const last = runs.at(-1);
      if (last && last[1] === style) last[0] += text;
      else runs.push([text, style]);
    }
    lines.push(runs);
  }
  const { modes } = terminal;
  return {
    type: buffer.type,
    cursor: [buffer.cursorX, buffer.cursorY],
    modes: {
      cursorKeys: modes.applicationCursorKeysMode,
      keypad: modes.applicationKeypadMode,
      paste: modes.bracketedPasteMode,
      insert: modes.insertMode,
      mouse: modes.mouseTrackingMode,
      origin: modes.originMode,
      focus: modes.sendFocusMode,
      wrap: modes.wraparoundMode,
    },
    lines,
  };
}

const screens = [];
for (const file of files) screens.push(await screen(file));
process.stdout.write(JSON.stringify(screens));
