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
/** Longest clipboard text that is offered: more is no text that a person copies. */
export const MAX_CLIPBOARD_CHARS = 1024 * 1024;

/** Registers the filters. `offerCopy` gets the text that the program would like on the clipboard. */
export function guardTerminal(
  terminal: Pick<Terminal, "parser">,
  offerCopy: (text: string) => void,
): IDisposable {
  const { parser } = terminal;
  const swallow = () => true;
  const disposables: IDisposable[] = [
    guardErasing(terminal),
    ...SWALLOWED_CSI.map((id) => parser.registerCsiHandler(id, swallow)),
    parser.registerCsiHandler({ final: "t" }, (params) => WINDOW_REPORTS.has(Number(params[0]))),
    parser.registerDcsHandler({ intermediates: "$", final: "q" }, swallow), // DECRQSS
    parser.registerDcsHandler({ intermediates: "+", final: "q" }, swallow), // XTGETTCAP
    ...COLOUR_OSC.map((id) =>
      parser.registerOscHandler(id, (data) => data.split(";").some((part) => part.trim() === "?")),
    ),
    parser.registerOscHandler(52, (data) => {
      const text = clipboardText(data);
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
  };
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

/** The text of an OSC 52 write; null for a read, for nothing and for what is no text. */
export function clipboardText(data: string): string | null {
  const payload = data.slice(data.indexOf(";") + 1);
  if (payload === "?" || payload === "" || payload.length > (MAX_CLIPBOARD_CHARS * 4) / 3) return null;
  try {
    const bytes = Uint8Array.from(atob(payload), (char) => char.charCodeAt(0));
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes) || null;
  } catch {
    return null;
  }
}
