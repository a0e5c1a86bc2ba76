// xterm.js without a browser, set up as the web app sets it up (relay/web/src/terminal/view.ts).
import headless from "@xterm/headless";
import unicode11 from "@xterm/addon-unicode11";

/** A terminal, and `write`, which resolves when the bytes have been parsed. */
export function newTerminal(cols, rows, options = {}) {
  const terminal = new headless.Terminal({
    cols,
    rows,
    scrollback: 20_000,
    allowProposedApi: true,
    windowsPty: { backend: "conpty", buildNumber: 21_376 },
    ...options,
  });
  terminal.loadAddon(new unicode11.Unicode11Addon());
  terminal.unicode.activeVersion = "11";
  guardErasing(terminal);
  return terminal;
}

/** As `guardErasing` in relay/web/src/terminal/queries.ts, which says why. */
function guardErasing(terminal) {
  const core = terminal._core;
  for (const prefix of [undefined, "?"]) {
    terminal.parser.registerCsiHandler({ prefix, final: "J" }, (params) => {
      const { buffer } = core._bufferService;
      const { lines, y, ybase } = buffer;
      if (params[0] === 3) buffer.savedY = Math.max(buffer.savedY - ybase, 0);
      if (params[0] !== 1 || lines.get(y + 1)) return false;
      const get = lines.get;
      lines.get = (index) => get.call(lines, index) ?? {};
      core._inputHandler.eraseInDisplay({ params }, prefix !== undefined);
      delete lines.get;
      return true;
    });
  }
}

export const written = (terminal, bytes) => new Promise((done) => terminal.write(bytes, done));

const DASHED_LINK = 1 << 28; // HAS_EXTENDED

/** Everything that a person sees of a row and everything that a later resize would show, as numbers and strings. */
function cells(core, line, cols) {
  const out = [];
  for (let x = 0; x < cols; x++) {
    const cell = line.loadCell(x, new core._cell());
    const width = cell.getWidth();
    const chars = cell.getChars();
    // The second half of a wide character that is gone is a blank.
    const isHalf = width === 0 && chars === "" && x > 0 && line.getWidth(x - 1) === 2;
    const isBlank = !isHalf && (chars === "" || chars === " ");
    const isUnderlined = cell.fg & 0x10000000;
    const hasExtended = cell.bg & DASHED_LINK;
    const link = hasExtended ? linkOf(core, cell.extended.urlId) : "";
    out.push([
      isHalf ? "half" : isBlank ? " " : chars,
      isBlank ? 1 : width,
      cell.getFgColorMode(),
      cell.getFgColor(),
      cell.getBgColorMode(),
      cell.getBgColor(),
      cell.fg >>> 26,
      (cell.bg >>> 26) & ~4,
      !isUnderlined ? 0 : hasExtended ? (cell.extended._ext >>> 26) & 7 : 1,
      isUnderlined && hasExtended ? colour(cell.extended.underlineColor) : 0,
      link,
    ]);
  }
  return out;
}

/** A colour without the bits that its kind does not use: xterm.js leaves those of the colour before. */
const colour = (value) => ((value & 0x3000000) === 0x3000000 ? value : value & 0x30000ff);

/** A link as the person meets it: where it leads, and which cells belong together. xterm.js forgets links whose line was erased. */
function linkOf(core, id) {
  if (!id) return "";
  const data = core._oscLinkService.getLinkData(id);
  return data ? `${data.id ?? ""};${data.uri}` : "forgotten";
}

/** The screen and all state that later output may depend on. */
export function state(terminal) {
  const core = terminal._core;
  core._cell ??= core._bufferService.buffer.getNullCell().constructor;
  const { buffer, buffers } = core._bufferService;
  const { decPrivateModes: modes, modes: ansi } = core.coreService;
  const options = core.optionsService.rawOptions;
  const rows = [];
  for (let y = 0; y < terminal.rows; y++) {
    const line = buffer.lines.get(buffer.ybase + y);
    rows.push({ wrapped: line.isWrapped, cells: cells(core, line, terminal.cols) });
  }
  return {
    rows,
    other: {
      screen: buffer === buffers.alt ? "alternate" : "normal",
      cursor: [buffer.x, buffer.y],
      region: [buffer.scrollTop, buffer.scrollBottom],
      tabs: Object.keys(buffer.tabs).filter((x) => buffer.tabs[x] && x < terminal.cols),
      modes: { ...modes, ...ansi },
      mouse: [core.coreMouseService.activeProtocol, core.coreMouseService.activeEncoding],
      hidden: core.coreService.isCursorHidden,
      newline: options.convertEol,
      blinks: options.cursorBlink,
      title: core._inputHandler._windowTitle,
    },
  };
}

/** Where two states differ, in words; null if they do not. */
export function difference(left, right) {
  for (const key of Object.keys(left.other)) {
    const [one, other] = [JSON.stringify(left.other[key]), JSON.stringify(right.other[key])];
    if (one !== other) return `${key}: ${one} against ${other}`;
  }
  for (let y = 0; y < left.rows.length; y++) {
    const [one, other] = [left.rows[y], right.rows[y]];
    if (one.wrapped !== other.wrapped) return `row ${y}: wrapped ${one.wrapped} against ${other.wrapped}`;
    for (let x = 0; x < one.cells.length; x++) {
      const [a, b] = [one.cells[x], other.cells[x]];
      if (a.some((value, index) => value !== b[index] && !(index === 10 && [value, b[index]].includes("forgotten")))) {
        return `row ${y}, column ${x}: ${JSON.stringify(a)} against ${JSON.stringify(b)}`;
      }
    }
  }
  return null;
}
