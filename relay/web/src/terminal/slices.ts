/**
 * Cuts output into slices that a terminal parses in a few milliseconds each. xterm.js gives the page a chance between
 * two writes, never within one, and a few bytes can mean a lot of work: `CSI 512 S` moves a screen of lines 512 times.
 * The numbers of such sequences are lowered, in place, to what the screen can show; the result is the same.
 */

/** Work of one slice. A unit is about a screen line that is moved: some 5 µs on a slow machine. */
const SLICE_WORK = 500;
/** Work of what is counted by no number: a reset, another screen, a screen that is cleared or filled. */
const SCREEN_WORK = 200;
/** Work of a line feed at the bottom: a line is made, and everybody who watches the position is told. */
const LINE_WORK = 2;
/** Bytes of plain text that make a unit. */
const BYTES_PER_WORK = 16;

const ESC = 0x1b;
const LF = 0x0a;
const code = (char: string) => char.charCodeAt(0);
const [OPEN, ZERO, NINE] = [code("["), code("0"), code("9")];
/** Finals of `CSI n …` that move lines; more than the screen has do nothing more. */
const LINES: ReadonlySet<number> = new Set([..."STLM"].map(code));
/** Finals that move, erase or skip characters; more than a line has do nothing more. */
const COLUMNS: ReadonlySet<number> = new Set([..."@PXIZ"].map(code));
/** Finals that set or clear a screen. */
const SCREENS: ReadonlySet<number> = new Set([..."hlJ"].map(code));
const [REPEAT, RESET, HASH] = [code("b"), code("c"), code("#")];

interface Size {
  cols: number;
  rows: number;
}

/** The slices of these bytes, which are changed where a number is lowered. */
export function* slicesOf(bytes: Uint8Array, size: Size): Generator<Uint8Array> {
  let from = 0;
  let work = 0;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at];
    if (byte === LF) work += LINE_WORK;
    else if (byte === ESC) {
      const sequence = workOf(bytes, at + 1, size);
      at = sequence.last;
      work += sequence.work;
    }
    if (work + (at - from) / BYTES_PER_WORK >= SLICE_WORK) {
      yield bytes.subarray(from, at + 1);
      from = at + 1;
      work = 0;
    }
  }
  if (from < bytes.length || bytes.length === 0) yield bytes.subarray(from);
}

/** Work of the sequence whose ESC stands before `start`, and where its last byte is. */
function workOf(bytes: Uint8Array, start: number, { cols, rows }: Size): { work: number; last: number } {
  const kind = bytes[start];
  if (kind !== OPEN) {
    const isScreen = kind === RESET || kind === HASH;
    return { work: isScreen ? SCREEN_WORK : 1, last: kind === undefined ? start - 1 : start };
  }
  let at = start + 1;
  let digits = 0;
  let number = 0;
  let isPlain = true;
  let byte = bytes[at];
  // Parameters and intermediates; sequences that do more for a larger number have one number only.
  while (byte !== undefined && byte >= 0x20 && byte < 0x40) {
    if (isPlain && byte >= ZERO && byte <= NINE) {
      number = Math.min(number * 10 + byte - ZERO, 100_000);
      digits++;
    } else isPlain = false;
    byte = bytes[++at];
  }
  if (byte === undefined) return { work: 0, last: at - 1 };
  let work = 1;
  if (isPlain && LINES.has(byte)) work = 1 + lowered(bytes, at, digits, number, rows);
  else if (isPlain && COLUMNS.has(byte)) work = 1 + lowered(bytes, at, digits, number, cols) / 8;
  else if (SCREENS.has(byte)) work = SCREEN_WORK / 4;
  else if (byte === REPEAT) work = 1 + number / 2;
  else if (!isPlain) work = 1 + number / 8;
  return { work, last: at };
}

/** Writes `most` over a larger number that ends before `end`; leading zeros keep the length. */
function lowered(bytes: Uint8Array, end: number, digits: number, number: number, most: number): number {
  if (number <= most) return number;
  let rest = most;
  for (let index = end - 1; index >= end - digits; index--) {
    bytes[index] = ZERO + (rest % 10);
    rest = Math.floor(rest / 10);
  }
  return most;
}
