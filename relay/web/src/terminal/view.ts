/**
 * One full terminal on the page: xterm.js with its addons, wired to an attachment and a writer. It owns the DOM
 * node that it is given and nothing else; Vue components only place it and show what it reports.
 */
import "@xterm/xterm/css/xterm.css";

import { SearchAddon } from "@xterm/addon-search";
import { Unicode11Addon } from "@xterm/addon-unicode11";
import { WebLinksAddon } from "@xterm/addon-web-links";
import { WebglAddon } from "@xterm/addon-webgl";
import { Terminal } from "@xterm/xterm";

import type { SessionInfo, TermSize } from "@/api/types";
import type { LiveSocket } from "@/wire/socket";

import { Attachment, type AttachmentStatus } from "./attachment";
import { debugHook, OutputHash } from "./debug";
import { fontThatFits, measureCell, type Measure, sizeThatFits, SMALLEST_FONT } from "./fit";
import { hasGraphics } from "./graphics";
import { InputWriter, type NotDelivered } from "./input";
import { OrderedTerminal } from "./ordered";
import { guardTerminal } from "./queries";
import { FONT_FAMILY, loadFonts, theme } from "./theme";

/** Lines above the screen that the page keeps. */
const SCROLLBACK_LINES = 20_000;
/** A window that is dragged sends its last size only. */
const RESIZE_PAUSE_MS = 120;
/** A paste above this is asked about first: most are a mistake. */
export const LARGE_PASTE_CHARS = 1024 * 1024;

export interface ViewState {
  attachment: AttachmentStatus;
  /** Lines between the bottom of what is shown and the live end; 0 is live. */
  linesAbove: number;
  /** What would fit here at the chosen font size. */
  fits: TermSize | null;
  pendingInputBytes: number;
  /** Matches of the search, if one is open. */
  matches: { index: number; count: number } | null;
  /** True while the terminal is wider than the room and can be moved. */
  isPanned: boolean;
}

export interface ViewEvents {
  state(state: ViewState): void;
  notDelivered(lost: NotDelivered): void;
  /** A link was clicked; opening it is up to the person. */
  link(uri: string): void;
  /** The program wants to put text on the clipboard. */
  copyOffer(text: string): void;
  largePaste(text: string): void;
  copied(isCopied: boolean): void;
  /** A key that belongs to the page and not to the program. */
  pageKey(key: "palette" | "search" | "leave"): void;
}

export interface ViewOptions {
  node: HTMLElement;
  socket: LiveSocket;
  session: SessionInfo;
  fontSize: number;
  isWhole: boolean;
  /** False on a phone: it never sets the size. */
  maySize: boolean;
  /** Smallest font before the terminal is moved instead of shrunk. */
  leastFont?: number;
  copy(text: string): Promise<boolean>;
  events: ViewEvents;
}

export class TerminalView {
  readonly terminal: Terminal;
  readonly writer: InputWriter;
  readonly attachment: Attachment;
  #options: ViewOptions;
  #ordered: OrderedTerminal;
  #search = new SearchAddon();
  #webgl: WebglAddon | null = null;
  #measure: Measure;
  #state: ViewState;
  #hash: OutputHash | null;
  #observer: ResizeObserver;
  #resizeTimer: ReturnType<typeof setTimeout> | undefined;
  /** Lines above the live end to go back to once older output is there. */
  #keptDistance: number | null = null;
  #isCtrlArmed = false;
  #onCtrlUsed: (() => void) | null = null;
  #cleanup: (() => void)[] = [];
  #isDisposed = false;
  #isLive = false;
  #fontSize: number;
  #leastFont: number;

  constructor(options: ViewOptions) {
    this.#options = options;
    this.#fontSize = options.fontSize;
    this.#leastFont = options.leastFont ?? SMALLEST_FONT;
    const size = options.session.size;
    this.terminal = new Terminal({
      cols: size.cols,
      rows: size.rows,
      allowProposedApi: true,
      cursorBlink: false,
      fontFamily: FONT_FAMILY,
      fontSize: options.fontSize,
      theme,
      scrollback: SCROLLBACK_LINES,
      macOptionIsMeta: true,
      minimumContrastRatio: 1,
      smoothScrollDuration: 0,
      // A taller screen gets blank lines below, as the machine's own model of it does, instead of lines from above: a
      // page that saw everything and one that came late then show the same. (Lines are still wrapped anew.)
      windowsPty: { backend: "conpty", buildNumber: 21_376 },
      linkHandler: { activate: (_event, uri) => options.events.link(uri), allowNonHttpProtocols: false },
    });
    this.terminal.loadAddon(new Unicode11Addon());
    this.terminal.unicode.activeVersion = "11";
    this.terminal.loadAddon(this.#search);
    this.terminal.loadAddon(new WebLinksAddon((_event, uri) => options.events.link(uri)));
    guardTerminal(this.terminal, (text) => {
      // Not what is only shown again: whoever was there has been asked.
      if (this.#isLive) options.events.copyOffer(text);
    });
    this.terminal.open(options.node);
    this.#loadWebgl();
    this.#measure = measureCell(FONT_FAMILY, this.#webgl !== null);

    this.#ordered = new OrderedTerminal(this.terminal);
    this.#hash = debugHook() ? new OutputHash() : null;
    this.writer = new InputWriter({
      notDelivered: (lost) => options.events.notDelivered(lost),
      resync: () => this.attachment.resync(),
      pending: (pendingInputBytes) => this.#set({ pendingInputBytes }),
    });
    this.attachment = new Attachment({
      socket: options.socket,
      session: options.session.id,
      terminal: this.#ordered,
      writer: this.writer,
      maySize: options.maySize,
      isWhole: options.isWhole,
      // Short sessions come whole, with everything above the screen; long ones as a snapshot, and the rest on demand.
      from: { epoch: options.session.epoch, offset: 0 },
      onStatus: (attachment) => this.#attachmentChanged(attachment),
      onLive: (isLive) => (this.#isLive = isLive),
      onOutput: this.#hash ? (bytes, position) => this.#hash?.output(bytes, position) : undefined,
      onSnapshot: this.#hash ? (position) => this.#hash?.snapshot(position) : undefined,
    });
    this.#state = {
      attachment: this.attachment.status,
      linesAbove: 0,
      fits: null,
      pendingInputBytes: 0,
      matches: null,
      isPanned: false,
    };

    this.#wireKeys();
    this.#wirePaste(options.node);
    this.terminal.onScroll(() => this.#updateScroll());
    this.terminal.onWriteParsed(() => this.#updateScroll());
    this.#search.onDidChangeResults(({ resultIndex, resultCount }) =>
      this.#set({ matches: { index: resultIndex, count: resultCount } }),
    );
    this.#observer = new ResizeObserver(() => this.#roomChanged());
    this.#observer.observe(options.node);
    this.layout();
    this.#exposeDebug();
    void this.#adoptFonts();
  }

  dispose(): void {
    this.#isDisposed = true;
    clearTimeout(this.#resizeTimer);
    this.#observer.disconnect();
    this.attachment.close();
    this.#ordered.dispose();
    for (const undo of this.#cleanup) undo();
    this.terminal.dispose();
  }

  focus(): void {
    this.terminal.focus();
  }

  setFont(fontSize: number, leastFont = this.#leastFont): void {
    this.#fontSize = fontSize;
    this.#leastFont = leastFont;
    this.layout();
  }

  toBottom(): void {
    this.terminal.scrollToBottom();
    this.#updateScroll();
  }

  /** True if there is nothing above what is shown. */
  get isAtTop(): boolean {
    const { type, viewportY } = this.terminal.buffer.active;
    return type === "normal" && viewportY === 0;
  }

  /** Brings older output and stays where the person was looking, counted from the live end. */
  loadOlder(): void {
    this.#keptDistance = this.#state.linesAbove;
    this.attachment.loadOlder();
  }

  takeSize(): void {
    if (this.#state.fits) this.attachment.takeSize(this.#state.fits);
  }

  find(text: string, isBackwards: boolean, isIncremental = false): void {
    if (text === "") {
      this.#search.clearDecorations();
      this.#set({ matches: null });
      return;
    }
    const options = {
      incremental: isIncremental,
      decorations: {
        matchBackground: "#5a4a1c",
        matchOverviewRuler: "#e0b04a",
        activeMatchBackground: "#b57b12",
        activeMatchColorOverviewRuler: "#f0936c",
      },
    };
    if (isBackwards) this.#search.findPrevious(text, options);
    else this.#search.findNext(text, options);
  }

  endSearch(): void {
    this.#search.clearDecorations();
    this.#set({ matches: null });
  }

  /** Bytes as a key of the key bar or a mouse report makes them. */
  send(data: string): void {
    this.writer.push(new TextEncoder().encode(data));
    this.terminal.scrollToBottom();
    this.#showCursor();
  }

  sendBytes(bytes: Uint8Array): void {
    this.writer.push(bytes);
  }

  /** Pastes as the terminal would: bracketed where the program asks for it. */
  paste(text: string): void {
    this.terminal.paste(text);
  }

  arrow(direction: "A" | "B" | "C" | "D"): void {
    this.send(`\x1b${this.terminal.modes.applicationCursorKeysMode ? "O" : "["}${direction}`);
  }

  /** Makes the next letter a control character, once. */
  armCtrl(isArmed: boolean, onUsed: () => void): void {
    this.#isCtrlArmed = isArmed;
    this.#onCtrlUsed = onUsed;
  }

  async copySelection(): Promise<void> {
    const text = this.terminal.getSelection();
    if (text) this.#options.events.copied(await this.#options.copy(text));
  }

  /** Fits size and font to the room. */
  layout(): void {
    const room = this.#room();
    if (!room) return;
    const fits = sizeThatFits(room, this.#measure(this.#fontSize));
    const size = this.attachment.status.size ?? this.#options.session.size;
    if (fits) this.attachment.wishSize(fits);
    const isMine = fits?.cols === size.cols && fits.rows === size.rows;
    const font = isMine
      ? this.#fontSize
      : fontThatFits(room, size, this.#fontSize, this.#measure, this.#leastFont);
    if (this.terminal.options.fontSize !== font) this.terminal.options.fontSize = font;
    const cell = this.#measure(font);
    const isPanned = cell.width * size.cols > room.width + 1 || cell.height * size.rows > room.height + 1;
    this.#set({ fits, isPanned });
    this.#showCursor();
  }

  /** Brings the cursor's line into view where the terminal is larger than its room: a phone, or its keyboard is open. */
  #showCursor(): void {
    const { node } = this.#options;
    const { cursorY, baseY, viewportY } = this.terminal.buffer.active;
    if (!this.#state.isPanned || baseY !== viewportY) return;
    const height = this.#measure(this.terminal.options.fontSize ?? this.#fontSize).height;
    // Two lines around it: a prompt has a frame.
    const top = Math.max(0, (cursorY - 2) * height);
    const bottom = (cursorY + 3) * height;
    if (bottom > node.scrollTop + node.clientHeight) node.scrollTop = bottom - node.clientHeight;
    else if (top < node.scrollTop) node.scrollTop = top;
  }

  /** The bundled fonts may arrive after the first measurement and after the first glyphs were drawn. */
  async #adoptFonts(): Promise<void> {
    if (!document.fonts) return;
    await loadFonts();
    if (this.#isDisposed) return;
    this.#measure = measureCell(FONT_FAMILY, this.#webgl !== null);
    // A new value, though an equal one, makes xterm.js measure again.
    this.terminal.options.fontFamily = `${FONT_FAMILY} `;
    this.terminal.clearTextureAtlas();
    this.layout();
  }

  #room(): { width: number; height: number } | null {
    const { node } = this.#options;
    const style = getComputedStyle(node);
    const width = node.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    const height = node.clientHeight - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom);
    return width > 0 && height > 0 ? { width, height } : null;
  }

  #loadWebgl(): void {
    if (!hasGraphics()) return;
    try {
      const webgl = new WebglAddon();
      webgl.onContextLoss(() => {
        webgl.dispose();
        this.#webgl = null;
        this.#measure = measureCell(FONT_FAMILY, false);
        this.layout();
      });
      this.terminal.loadAddon(webgl);
      this.#webgl = webgl;
    } catch {
      // No WebGL here: the DOM renderer is slower and just as right.
      this.#webgl = null;
    }
  }

  #attachmentChanged(attachment: AttachmentStatus): void {
    if (!this.#state) return;
    const { size: before, phase } = this.#state.attachment;
    this.#set({ attachment });
    const { size } = attachment;
    const distance = this.#keptDistance;
    if (distance !== null && attachment.loading === null && attachment.phase === "live") {
      this.#keptDistance = null;
      this.#ordered.run(() => this.terminal.scrollToLine(this.terminal.buffer.active.baseY - distance));
    }
    if (attachment.phase === "live" && phase !== "live") {
      this.#ordered.run(() => this.#showCursor());
    }
    if (size?.cols !== before?.cols || size?.rows !== before?.rows) this.#ordered.run(() => this.layout());
  }

  #roomChanged(): void {
    clearTimeout(this.#resizeTimer);
    this.#resizeTimer = setTimeout(() => this.layout(), RESIZE_PAUSE_MS);
  }

  #updateScroll(): void {
    const { baseY, viewportY } = this.terminal.buffer.active;
    this.#set({ linesAbove: Math.max(0, baseY - viewportY) });
  }

  #wireKeys(): void {
    const utf8 = new TextEncoder();
    this.terminal.onData((data) => {
      let text = data;
      if (this.#isCtrlArmed && /^[a-z@[\\\]^_ ]$/i.test(data)) {
        text = String.fromCharCode(data.toUpperCase().charCodeAt(0) & 31);
        this.#isCtrlArmed = false;
        this.#onCtrlUsed?.();
      }
      this.writer.push(utf8.encode(text));
    });
    // Mouse reports of the old encoding are bytes, not text.
    this.terminal.onBinary((data) => this.writer.push(Uint8Array.from(data, (char) => char.charCodeAt(0))));
    const unnamed = this.#wireUnnamedKeys();
    this.terminal.attachCustomKeyEventHandler((event) => {
      if (event.type !== "keydown") return true;
      if (unnamed(event)) return false;
      const isMod = event.metaKey || (event.ctrlKey && event.shiftKey);
      const key = event.key.toLowerCase();
      if (isMod && (key === "k" || key === "f")) {
        event.preventDefault();
        this.#options.events.pageKey(key === "k" ? "palette" : "search");
        return false;
      }
      if (event.shiftKey && (event.ctrlKey || event.metaKey) && key === "arrowup") {
        event.preventDefault();
        this.#options.events.pageKey("leave");
        return false;
      }
      if (event.ctrlKey && event.shiftKey && key === "c") {
        event.preventDefault();
        void this.copySelection();
        return false;
      }
      // Left to the browser, which then fires a paste.
      if (event.ctrlKey && event.shiftKey && key === "v") return false;
      const isPlainShift = event.shiftKey && !event.ctrlKey && !event.altKey && !event.metaKey;
      if (event.key === "Enter" && isPlainShift && this.#options.session.mode === "interactive") {
        // What Claude Code's own terminal set-up makes of Shift+Enter: a new line in the prompt.
        event.preventDefault();
        this.send("\x1b\r");
        return false;
      }
      return true;
    });
  }

  /**
   * Keyboards of phones send keys without a name (229) and the text beside them. xterm.js compares its field before and
   * a moment after the key, and loses or doubles text that comes later or faster; the field's own event tells exactly.
   * Composed text stays with xterm.js. Answers whether a key is such a one.
   */
  #wireUnnamedKeys(): (event: KeyboardEvent) => boolean {
    const field = this.terminal.textarea;
    let isUnnamed = false;
    const forget = () => (isUnnamed = false);
    const onInput = (event: Event) => {
      if (!isUnnamed || !(event instanceof InputEvent) || event.isComposing) return;
      if (event.inputType === "insertText" && event.data) this.terminal.input(event.data);
      else if (event.inputType === "deleteContentBackward") this.terminal.input("\x7f");
    };
    field?.addEventListener("input", onInput);
    for (const type of ["compositionstart", "compositionupdate", "compositionend"]) {
      field?.addEventListener(type, forget);
    }
    return (event) => {
      isUnnamed = event.keyCode === 229 && !event.isComposing;
      return isUnnamed;
    };
  }

  #wirePaste(node: HTMLElement): void {
    const onPaste = (event: ClipboardEvent) => {
      const text = event.clipboardData?.getData("text/plain") ?? "";
      if (text.length <= LARGE_PASTE_CHARS) return;
      event.preventDefault();
      event.stopImmediatePropagation();
      this.#options.events.largePaste(text);
    };
    node.addEventListener("paste", onPaste, { capture: true });
    this.#cleanup.push(() => node.removeEventListener("paste", onPaste, { capture: true }));
  }

  #set(change: Partial<ViewState>): void {
    const keys = Object.keys(change) as (keyof ViewState)[];
    if (keys.every((key) => this.#state[key] === change[key])) return;
    this.#state = { ...this.#state, ...change };
    this.#options.events.state(this.#state);
  }

  #lines(from: number, to: number): string[] {
    const { active } = this.terminal.buffer;
    const lines: string[] = [];
    for (let row = from; row < to; row++) {
      // Blanks at the end of a line look the same whether they were printed or not.
      lines.push((active.getLine(row)?.translateToString(true) ?? "").trimEnd());
    }
    return lines;
  }

  #exposeDebug(): void {
    const hook = debugHook();
    const hash = this.#hash;
    if (!hook || !hash) return;
    const { session } = this.#options;
    const { terminal } = this;
    const lines = (from: number, to: number) => this.#lines(from, to);
    hook.sessions[session.id] = () => {
      const { baseY, length } = this.terminal.buffer.active;
      return {
        id: session.id,
        name: session.name,
        status: this.attachment.status,
        from: hash.from,
        bytes: hash.bytes,
        // Asked for many times a second by waiting tests, which mostly want the screen.
        get sha256() {
          return hash.hex();
        },
        snapshots: hash.snapshots,
        pendingInputBytes: this.writer.pendingBytes,
        get screen() {
          return lines(baseY, baseY + terminal.rows);
        },
        get history() {
          return lines(0, length);
        },
        size: { cols: this.terminal.cols, rows: this.terminal.rows },
        renderer: this.#webgl ? "webgl" : "dom",
      };
    };
    hook.inputs[session.id] = {
      type: (text) => this.terminal.input(text, true),
      paste: (text) => this.paste(text),
    };
    this.#cleanup.push(() => {
      delete hook.sessions[session.id];
      delete hook.inputs[session.id];
    });
  }
}
