/**
 * Keeps a viewer's terminal from answering the program. The machine alone answers device queries; an answer of a
 * viewer would look like typing, once for every viewer. Also holds back clipboard writes until a person clicks.
 */
import type { IDisposable, IFunctionIdentifier, Terminal } from "@xterm/xterm";

const SWALLOWED_CSI: IFunctionIdentifier[] = [
  { final: "c" }, // DA1
  { prefix: ">", final: "c" }, // DA2
  { prefix: "=", final: "c" }, // DA3
  { final: "n" }, // DSR, cursor position
  { prefix: "?", final: "n" }, // DECDSR
  { intermediates: "$", final: "p" }, // DECRQM, ANSI modes
  { prefix: "?", intermediates: "$", final: "p" }, // DECRQM, private modes
  { prefix: ">", final: "q" }, // XTVERSION
  { prefix: "?", final: "u" }, // kitty keyboard query
  { prefix: "?", final: "S" }, // graphics attributes
  { final: "x" }, // DECREQTPARM
];
/** Window reports; the others (title stack, resize) stay with xterm.js, which ignores what is not allowed. */
const WINDOW_REPORTS = new Set([11, 13, 14, 15, 16, 18, 19, 20, 21]);
/** Palette, special, foreground, background, cursor and highlight colours: setting them is fine, asking is not. */
const COLOUR_OSC = [4, 5, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19];
/**
 * What a program wants on the clipboard: base64, at most 48 KiB of text, under a number that no terminal knows. The
 * machine makes it of OSC 52, which it lets nobody see.
 */
const OFFER_OSC = 952;
const MAX_OFFER_CHARS = 64 * 1024;

/** Registers the filters. `offerCopy` gets the text that the program would like on the clipboard. */
export function guardTerminal(
  terminal: Pick<Terminal, "parser">,
  offerCopy: (text: string) => void,
): IDisposable {
  const { parser } = terminal;
  const swallow = () => true;
  const disposables: IDisposable[] = [
    guardErasing(terminal),
    guardFocus(terminal),
    ...SWALLOWED_CSI.map((id) => parser.registerCsiHandler(id, swallow)),
    parser.registerCsiHandler({ final: "t" }, (params) => WINDOW_REPORTS.has(Number(params[0]))),
    parser.registerDcsHandler({ intermediates: "$", final: "q" }, swallow), // DECRQSS
    parser.registerDcsHandler({ intermediates: "+", final: "q" }, swallow), // XTGETTCAP
    ...COLOUR_OSC.map((id) =>
      parser.registerOscHandler(id, (data) => data.split(";").some((part) => part.trim() === "?")),
    ),
    parser.registerOscHandler(52, swallow),
    parser.registerOscHandler(OFFER_OSC, (data) => {
      const text = offeredText(data);
      if (text) offerCopy(text);
      return true;
    }),
  ];
  return { dispose: () => disposables.forEach((item) => item.dispose()) };
}

/** The parts of xterm.js 6.0 that [`guardErasing`] has to reach; they are not in its interface. */
interface Inside {
  _core: {
    _bufferService: {
      buffer: { lines: { get(index: number): object | undefined }; y: number; ybase: number; savedY: number };
    };
    _inputHandler: {
      eraseInDisplay(params: { params: (number | number[])[] }, isSelective: boolean): boolean;
    };
    _reportFocus?: () => void;
  };
}

/**
 * xterm.js 6.0 says at once whether it has the focus when a program asks to be told of changes (mode 1004), as if
 * somebody had typed it: once for every viewer, and again whenever the mode is set anew by a reload or a snapshot. xterm
 * itself tells changes only, and so do we.
 */
function guardFocus(terminal: Pick<Terminal, "parser">): IDisposable {
  const core = (terminal as unknown as Inside)._core;
  core._reportFocus = () => undefined;
  return { dispose: () => Reflect.deleteProperty(core, "_reportFocus") };
}

/**
 * Two faults of xterm.js 6.0. `CSI 1 J` in the last column of the last row throws while nothing has scrolled away yet,
 * and no byte is taken after that: one line of output would end every viewer. And `CSI 3 J` leaves the row of the saved
 * cursor counted from a history that is gone, so that the cursor comes back elsewhere in a viewer that came late.
 */
export function guardErasing(terminal: Pick<Terminal, "parser">): IDisposable {
  const core = (terminal as unknown as Inside)._core;
  const erase = (isSelective: boolean) => (params: (number | number[])[]) => {
    const { buffer } = core._bufferService;
    const { lines, y, ybase } = buffer;
    if (params[0] === 3) buffer.savedY = Math.max(buffer.savedY - ybase, 0);
    if (params[0] !== 1 || lines.get(y + 1)) return false;
    const inherited = lines.get;
    lines.get = (index) => inherited.call(lines, index) ?? {};
    try {
      core._inputHandler.eraseInDisplay({ params }, isSelective);
    } finally {
      Reflect.deleteProperty(lines, "get");
    }
    return true;
  };
  const disposables = [
    terminal.parser.registerCsiHandler({ final: "J" }, erase(false)),
    terminal.parser.registerCsiHandler({ prefix: "?", final: "J" }, erase(true)),
  ];
  return { dispose: () => disposables.forEach((item) => item.dispose()) };
}

/**
 * The text of an offer without control characters (a line that is pasted into another terminal must not steer it); null
 * for what is no text.
 */
export function offeredText(data: string): string | null {
  if (data === "" || data.length > MAX_OFFER_CHARS) return null;
  try {
    const bytes = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return text.replace(/\r\n?/g, "\n").replace(/[^\P{Cc}\t\n]/gu, "") || null;
  } catch {
    return null;
  }
}
