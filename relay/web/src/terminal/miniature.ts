/**
 * A live miniature: a headless terminal, painted small on a canvas a few times a second. Read-only: it has no
 * writer, so nothing that it does can reach the program.
 */
import { Unicode11Addon } from "@xterm/addon-unicode11";
import { type IBufferCell, Terminal } from "@xterm/xterm";

import type { SessionInfo } from "@/api/types";
import type { LiveSocket } from "@/wire/socket";

import { Attachment, type AttachmentStatus } from "./attachment";
import { OrderedTerminal } from "./ordered";
import { guardTerminal } from "./queries";
import { BACKGROUND, FONT_FAMILY, FOREGROUND, loadFonts, paletteColour } from "./theme";

/** Four pictures a second show that something lives, and cost little. */
const PAINT_PAUSE_MS = 250;
/** A miniature needs the newest screen, not the way there. */
const LAG_LIMIT_BYTES = 64 * 1024;

export class Miniature {
  #canvas: HTMLCanvasElement;
  #terminal: Terminal;
  #ordered: OrderedTerminal;
  #attachment: Attachment;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #observer: ResizeObserver;
  #last = 0;
  #isDisposed = false;

  constructor(
    canvas: HTMLCanvasElement,
    socket: LiveSocket,
    session: SessionInfo,
    onStatus: (status: AttachmentStatus) => void,
  ) {
    this.#canvas = canvas;
    this.#terminal = new Terminal({
      cols: session.size.cols,
      rows: session.size.rows,
      scrollback: 0,
      allowProposedApi: true,
    });
    this.#terminal.loadAddon(new Unicode11Addon());
    this.#terminal.unicode.activeVersion = "11";
    guardTerminal(this.#terminal, () => undefined);
    this.#ordered = new OrderedTerminal(this.#terminal);
    this.#terminal.onWriteParsed(() => this.#schedule());
    this.#terminal.onResize(() => this.#schedule());
    this.#attachment = new Attachment({
      socket,
      session: session.id,
      terminal: this.#ordered,
      writer: null,
      maySize: false,
      lagLimitBytes: LAG_LIMIT_BYTES,
      onStatus,
    });
    this.#observer = new ResizeObserver(() => this.#schedule());
    this.#observer.observe(canvas);
    if (document.fonts) void loadFonts().then(() => this.#schedule());
  }

  retry(): void {
    this.#attachment.retry();
  }

  dispose(): void {
    this.#isDisposed = true;
    clearTimeout(this.#timer);
    this.#observer.disconnect();
    this.#attachment.close();
    this.#ordered.dispose();
    this.#terminal.dispose();
  }

  #schedule(): void {
    if (this.#timer !== undefined || this.#isDisposed) return;
    const pause = Math.max(0, this.#last + PAINT_PAUSE_MS - performance.now());
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#last = performance.now();
      this.#paint();
    }, pause);
  }

  #paint(): void {
    const { cols, rows } = this.#terminal;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(this.#canvas.clientWidth * ratio);
    const height = Math.round(this.#canvas.clientHeight * ratio);
    const context = this.#canvas.getContext("2d");
    if (!context || width === 0 || height === 0) return;
    if (this.#canvas.width !== width) this.#canvas.width = width;
    if (this.#canvas.height !== height) this.#canvas.height = height;
    context.fillStyle = BACKGROUND;
    context.fillRect(0, 0, width, height);
    // JetBrains Mono cells are 0.6 × 1.32 of the font size.
    const font = Math.min(width / cols / 0.6, height / rows / 1.32);
    const cellWidth = font * 0.6;
    const cellHeight = font * 1.32;
    context.textBaseline = "top";
    const buffer = this.#terminal.buffer.active;
    const cell = buffer.getNullCell();
    for (let y = 0; y < rows; y++) {
      const line = buffer.getLine(buffer.baseY + y);
      if (!line) continue;
      let run = "";
      let runStart = 0;
      let runStyle = "";
      const flush = () => {
        if (run.trim() !== "") {
          const [weight = "400", colour = FOREGROUND] = runStyle.split("|");
          context.font = `${weight} ${font}px ${FONT_FAMILY}`;
          context.fillStyle = colour;
          context.fillText(run, runStart * cellWidth, y * cellHeight);
        }
        run = "";
      };
      for (let x = 0; x < cols; x++) {
        line.getCell(x, cell);
        const { ink, ground } = coloursOf(cell);
        if (ground) {
          context.fillStyle = ground;
          context.fillRect(x * cellWidth, y * cellHeight, cellWidth + 0.5, cellHeight + 0.5);
        }
        const chars = cell.getChars() || " ";
        const style = `${cell.isBold() ? "700" : "400"}|${ink}`;
        const isWide = cell.getWidth() !== 1;
        if (style !== runStyle || isWide) flush();
        if (run === "") {
          runStart = x;
          runStyle = style;
        }
        if (cell.getWidth() !== 0) run += chars;
        if (isWide) flush();
      }
      flush();
    }
  }
}

/** Colour of ink and ground of a cell as CSS; a null ground is the terminal's own. */
function coloursOf(cell: IBufferCell): { ink: string; ground: string | null } {
  const css = (value: number, isRgb: boolean) =>
    isRgb ? `#${value.toString(16).padStart(6, "0")}` : paletteColour(value);
  const ink = cell.isFgDefault() ? null : css(cell.getFgColor(), cell.isFgRGB());
  const ground = cell.isBgDefault() ? null : css(cell.getBgColor(), cell.isBgRGB());
  const [front, back] = cell.isInverse()
    ? [ground ?? BACKGROUND, ink ?? FOREGROUND]
    : [ink ?? FOREGROUND, ground];
  return { ink: cell.isDim() ? `color-mix(in srgb, ${front} 55%, ${BACKGROUND})` : front, ground: back };
}
