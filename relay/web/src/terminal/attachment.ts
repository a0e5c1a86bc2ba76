/**
 * One attached terminal stream: opens on the page's socket, keeps its position over reconnects, grants credit as
 * the terminal consumes, and says truthfully what it is. It knows no DOM; the terminal is behind {@link OrderedTerminal}.
 */
import type { Exit, StreamPosition, TermSize, WireError } from "@/api/types";
import {
  encodeFrame,
  encodeSize,
  exitOf,
  FLAG_GAP,
  FLAG_MORE,
  FLAG_REFUSED,
  type Frame,
  FrameKind,
  sizeOf,
  uuidBytes,
} from "@/wire/frame";
import {
  CREDIT_STEP_BYTES,
  DEFAULT_LAG_LIMIT_BYTES,
  MAX_LAG_LIMIT_BYTES,
  VIEWER_WINDOW_BYTES,
  WHOLE_WINDOW_BYTES,
} from "@/wire/limits";
import type { ChannelMessage, LiveSocket } from "@/wire/socket";

import type { InputWriter } from "./input";
import type { OrderedTerminal } from "./ordered";

/** How often a refused attachment is tried again before it is left to the person. */
const MAX_REATTACH = 5;

/** Refusals that may be over in a moment. A session that is just starting has no output to be found yet. */
const PASSING: ReadonlySet<string> = new Set(["machine_timeout", "unavailable", "internal", "not_found"]);

/**
 * Output that has waited this long for the terminal makes the page skip ahead, where it may: what a person sees and
 * answers is then never older than this and a round trip, however slow the page is.
 */
const BEHIND_MS = 150;
/** The same while a person waits for what a key does, if there is much to parse: a page that is only late catches up. */
const BEHIND_TYPED_MS = 50;
const BEHIND_TYPED_BYTES = 16 * 1024;
/** For how long after the machine took input this holds: a program that was stopped has its prompt on the screen by then. */
const TYPED_MS = 500;

export type AttachmentPhase =
  /** The socket is away; it comes back by itself. */
  | "waiting"
  | "attaching"
  | "live"
  /** Attached, but the machine's link is down. */
  | "machine_away"
  /** The relay or the machine said no. */
  | "refused"
  | "closed";

export interface AttachmentStatus {
  phase: AttachmentPhase;
  since: number;
  error: WireError | null;
  /** Size of the session's terminal. */
  size: TermSize | null;
  exit: Exit | null;
  /** Bytes that were skipped because the page was slower than the program; grows. */
  skippedBytes: number;
  /** Output before what the terminal holds, because the session is long; 0 when everything is here. */
  olderBytes: number;
  /** Set while older output is brought. */
  loading: { done: number; total: number } | null;
}

/**
 * Blanks the screen and takes back what a program may have switched on, without touching the lines above: what a
 * snapshot needs before it when the history stays.
 */
const CLEAN_SCREEN = new TextEncoder().encode(
  "\x18\x1b[?1049l\x1b[!p\x1b[?1000;1002;1003;1004;1006;2004;2026l\x1b[?7h\x1b[0m\x1b[H\x1b[2J",
);

export interface AttachmentOptions {
  socket: LiveSocket;
  session: string;
  terminal: OrderedTerminal;
  /** Absent attaches read-only. */
  writer?: InputWriter | null;
  maySize: boolean;
  /** True asks for every byte; false skips ahead when the program is faster than the page. */
  isWhole?: boolean;
  /** First position; a snapshot when absent, and when it is further back than the lag limit. */
  from?: StreamPosition | null;
  /** For small viewers: how far they may lag before they skip ahead. */
  lagLimitBytes?: number;
  onStatus?: (status: AttachmentStatus) => void;
  /** Every output byte as it arrives, before it is parsed. */
  onOutput?: (bytes: Uint8Array, position: StreamPosition) => void;
  onSnapshot?: (position: StreamPosition) => void;
  /** In step with the terminal: whether what it parses now was printed after this page attached. */
  onLive?: (isLive: boolean) => void;
}

export class Attachment {
  status: AttachmentStatus = {
    phase: "waiting",
    since: Date.now(),
    error: null,
    size: null,
    exit: null,
    skippedBytes: 0,
    olderBytes: 0,
    loading: null,
  };
  /** Position of the next byte; null until the first one is known. */
  position: StreamPosition | null;
  #options: AttachmentOptions;
  #session: Uint8Array;
  #channel: number | null = null;
  #window: number;
  #consumed = 0;
  #granted = 0;
  #failures = 0;
  #wish: TermSize | null = null;
  /** Size that holds at `head`, for the case that the resize itself happened while we were away. */
  #expected: { head: number; size: TermSize } | null = null;
  /** Until the first output or snapshot: a jump then skips nothing that this page was shown. */
  #isFirst = true;
  /** Older output on its way: from where, and up to where (known once attached). */
  #older: { from: number; to: number | null; epoch: number } | null = null;
  /**
   * Epoch of the run whose end is in `status`. Whoever attaches again is told of the same end again: a run ends once,
   * so its epoch says that it is no news.
   */
  #endedEpoch: number | null = null;
  /** Up to where the program had printed when this was attached: history, which is not skipped. */
  #head = 0;
  /** What comes now was printed after that. */
  #isLive = false;
  /** First byte that was given up because the terminal was behind, until the snapshot comes. */
  #skippedFrom: number | null = null;
  /** A snapshot that the terminal has not parsed yet is not given up: something must be shown. */
  #isSnapshotDue = false;
  /** When the machine last said that it took input. */
  #typedAt = -Infinity;
  /** The next snapshot replaces the screen only; the lines above stay. */
  #keepsHistory = false;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #unsubscribe: () => void;

  constructor(options: AttachmentOptions) {
    this.#options = options;
    this.#session = uuidBytes(options.session);
    this.#window = 0;
    this.position = options.from ?? null;
    options.terminal.onSlice = () => this.#keepUp(false);
    this.#unsubscribe = options.socket.onState((state) => {
      if (state.phase === "open") this.#attach();
      else this.#lostSocket();
    });
    if (options.socket.isReady) this.#attach();
  }

  close(): void {
    this.#unsubscribe();
    this.#options.terminal.onSlice = null;
    clearTimeout(this.#retry);
    this.#detach();
    this.#options.writer?.lost();
    this.#set({ phase: "closed" });
  }

  /** Asks again after a refusal. */
  retry(): void {
    if (this.status.phase !== "refused") return;
    this.#failures = 0;
    this.#attach();
  }

  /**
   * Brings what was there before the page came, as far back as the machine sends it, and then the live end again.
   * Typing goes on meanwhile.
   */
  loadOlder(): void {
    const { position } = this;
    if (!position || this.#older || this.#channel === null || this.status.olderBytes === 0) return;
    // A little less than the limit: the session goes on while this is asked.
    const from = Math.max(0, position.offset - (MAX_LAG_LIMIT_BYTES - DEFAULT_LAG_LIMIT_BYTES));
    this.#older = { from, to: null, epoch: position.epoch };
    this.position = { epoch: position.epoch, offset: from };
    this.#options.terminal.reset();
    this.#set({ loading: { done: 0, total: position.offset - from } });
    this.#attach();
  }

  /** Says which size fits here; the machine decides whether it holds. */
  wishSize(size: TermSize): void {
    if (this.#wish?.cols === size.cols && this.#wish.rows === size.rows) return;
    this.#wish = size;
    this.#sendWish();
  }

  /** Owns the terminal's size from now on. */
  takeSize(size: TermSize): boolean {
    this.#wish = size;
    return this.#channel !== null
      ? this.#options.socket.send({ type: "take_size", channel: this.#channel, size })
      : false;
  }

  #attach(): void {
    clearTimeout(this.#retry);
    this.#detach();
    if (!this.#options.socket.isReady) return;
    const channel = this.#options.socket.openChannel({
      message: (message) => this.#message(channel, message),
      frame: (frame) => this.#frame(channel, frame),
    });
    const isWhole = this.#options.isWhole === true || this.#older !== null;
    this.#channel = channel;
    this.#window = isWhole ? WHOLE_WINDOW_BYTES : VIEWER_WINDOW_BYTES;
    this.#consumed = 0;
    this.#granted = this.#window;
    this.#set({ phase: "attaching", error: null });
    this.#options.socket.send({
      type: "attach",
      channel,
      session: this.#options.session,
      from: this.position,
      writer: this.#options.writer?.id ?? null,
      may_size: this.#options.maySize,
      lag_limit_bytes: isWhole
        ? MAX_LAG_LIMIT_BYTES
        : (this.#options.lagLimitBytes ?? DEFAULT_LAG_LIMIT_BYTES),
      credit: this.#window,
    });
  }

  #detach(): void {
    if (this.#channel === null) return;
    this.#options.socket.send({ type: "detach", channel: this.#channel });
    this.#options.socket.closeChannel(this.#channel);
    this.#channel = null;
    this.#options.writer?.lost();
  }

  #lostSocket(): void {
    if (this.#channel !== null) this.#options.socket.closeChannel(this.#channel);
    this.#channel = null;
    this.#options.writer?.lost();
    if (this.status.phase !== "waiting") this.#set({ phase: "waiting" });
  }

  #message(channel: number, message: ChannelMessage): void {
    if (channel !== this.#channel) return;
    switch (message.type) {
      case "attached":
        this.#failures = 0;
        this.#set({ phase: "live", error: null, size: this.status.size ?? message.size });
        // Another epoch than ours: what we have on screen belongs to a process that is gone.
        if (this.position && this.position.epoch !== message.epoch) this.position = null;
        this.#expected = { head: message.head, size: message.size };
        this.#head = message.head;
        this.#isLive = false;
        this.#tellLive();
        if (this.#older) this.#older.to ??= message.head;
        this.#settleSize();
        if (message.acked !== null && message.acked !== undefined) this.#openWriter(channel, message.acked);
        this.#sendWish();
        break;
      case "link":
        if (!message.is_up) {
          this.#options.writer?.lost();
          this.#set({ phase: "machine_away" });
        } else if (this.status.phase === "machine_away") {
          // Attach anew: this alone tells for certain which input arrived.
          this.#attach();
        }
        break;
      case "detached":
        this.#options.socket.closeChannel(channel);
        this.#channel = null;
        this.#options.writer?.lost();
        this.#refused(message.error ?? null);
        break;
    }
  }

  #refused(error: WireError | null): void {
    this.#older = null;
    this.#set({ phase: "refused", error, loading: null });
    const isPassing = error !== null && PASSING.has(error.code);
    if (!isPassing || this.#failures >= MAX_REATTACH) return;
    this.#failures++;
    this.#retry = setTimeout(() => this.#attach(), 500 * 2 ** this.#failures);
  }

  #openWriter(channel: number, acked: number): void {
    this.#options.writer?.opened(acked, (piece) => {
      if (channel !== this.#channel) return false;
      return this.#options.socket.sendFrame(
        encodeFrame({
          kind: FrameKind.Input,
          flags: piece.isMore ? FLAG_MORE : 0,
          channel,
          epoch: this.position?.epoch ?? 0,
          session: this.#session,
          offset: BigInt(piece.sequence),
          payload: piece.bytes,
        }),
      );
    });
  }

  /** Agrees on the input numbers anew after a refusal. */
  resync(): void {
    if (this.status.phase === "live") this.#attach();
  }

  #frame(channel: number, frame: Frame): void {
    if (channel !== this.#channel) return;
    const terminal = this.#options.terminal;
    const offset = Number(frame.offset);
    switch (frame.kind) {
      case FrameKind.Output:
        this.#output(channel, frame, offset);
        break;
      case FrameKind.Snapshot: {
        const size = sizeOf(frame);
        const isGap = (frame.flags & FLAG_GAP) !== 0;
        const before = this.position;
        const isSkip = isGap && before?.epoch === frame.epoch && !this.#isFirst && !this.#older;
        const skippedFrom = this.#skippedFrom ?? (isSkip ? before.offset : offset);
        const skipped = Math.max(0, offset - skippedFrom);
        this.#skippedFrom = null;
        this.#isSnapshotDue = true;
        const olderBytes = this.#keepsHistory || this.#older ? 0 : offset;
        this.#isFirst = false;
        this.position = { epoch: frame.epoch, offset };
        if (this.#keepsHistory) terminal.write(CLEAN_SCREEN);
        else terminal.reset();
        this.#keepsHistory = false;
        terminal.resize(size);
        terminal.write(frame.payload.subarray(4), () => {
          this.#isSnapshotDue = false;
          this.#consume(channel, frame.payload.length);
        });
        // A snapshot carries the size that holds at its own offset.
        if (this.#expected && offset >= this.#expected.head) this.#expected = null;
        this.#began(frame.epoch);
        this.#set({ size, skippedBytes: this.status.skippedBytes + skipped, olderBytes });
        // The machine keeps nothing older, or the session began anew meanwhile.
        if (this.#older) this.#endOlder();
        this.#options.onSnapshot?.(this.position);
        break;
      }
      case FrameKind.Resize: {
        const size = sizeOf(frame);
        this.#expected = null;
        terminal.resize(size);
        this.#set({ size });
        break;
      }
      case FrameKind.Exit:
        if (this.#endedEpoch === frame.epoch) break;
        this.#endedEpoch = frame.epoch;
        this.#set({ exit: exitOf(frame) });
        break;
      case FrameKind.InputAck: {
        const isRefused = (frame.flags & FLAG_REFUSED) !== 0;
        const code = isRefused ? new TextDecoder().decode(frame.payload) || "unknown" : null;
        this.#options.writer?.acknowledged(offset, code);
        // What waits was printed before the key was pressed, as far as the person can tell.
        this.#typedAt = performance.now();
        this.#keepUp(false);
        break;
      }
    }
  }

  #output(channel: number, frame: Frame, offset: number): void {
    if (this.position === null || this.position.epoch !== frame.epoch) {
      // A byte sequence that starts anew: a new process in the same session.
      if (offset !== 0) {
        this.#hole();
        return;
      }
      if (this.position) this.#options.terminal.reset();
      this.position = { epoch: frame.epoch, offset: 0 };
      if (this.status.olderBytes > 0) this.#set({ olderBytes: 0 });
    }
    if (offset !== this.position.offset) {
      this.#hole();
      return;
    }
    if (this.#keepUp(true)) return;
    const start = this.position;
    this.#isFirst = false;
    if (!this.#isLive && offset >= this.#head) {
      this.#isLive = true;
      this.#tellLive();
    }
    this.position = { epoch: frame.epoch, offset: offset + frame.payload.length };
    this.#began(frame.epoch);
    this.#options.onOutput?.(frame.payload, start);
    this.#options.terminal.write(frame.payload, () => this.#consume(channel, frame.payload.length));
    this.#settleSize();
    this.#progress();
  }

  #tellLive(): void {
    const { onLive, terminal } = this.#options;
    const isLive = this.#isLive;
    if (onLive) terminal.run(() => onLive(isLive));
  }

  /** Something of this run came: the end of an older one is past. */
  #began(epoch: number): void {
    if (this.#endedEpoch === null || this.#endedEpoch === epoch) return;
    this.#endedEpoch = null;
    this.#set({ exit: null });
  }

  #progress(): void {
    const { position } = this;
    const older = this.#older;
    if (!older || older.to === null || !position) return;
    if (position.offset < older.to && position.epoch === older.epoch) {
      this.#set({ loading: { done: position.offset - older.from, total: older.to - older.from } });
      return;
    }
    // Bytes from the middle may begin inside a sequence, and modes that were set before them are not known: a snapshot
    // says what the screen is.
    if (older.from > 0) {
      this.position = null;
      this.#keepsHistory = true;
    }
    this.#endOlder();
    // Attach anew, with the small limit again: a page that falls behind later should skip ahead as before.
    this.#attach();
  }

  #endOlder(): void {
    this.#older = null;
    this.#set({ loading: null, olderBytes: 0 });
  }

  /** Applies the size that came with `attached` once the stream has reached the point where it holds. */
  #settleSize(): void {
    const expected = this.#expected;
    if (!expected || !this.position || this.position.offset < expected.head) return;
    this.#expected = null;
    const { size } = this.status;
    if (size?.cols === expected.size.cols && size.rows === expected.size.rows) return;
    this.#options.terminal.resize(expected.size);
    this.#set({ size: expected.size });
  }

  /**
   * Where the terminal is behind: gives up what it has not parsed, and asks for the screen as it is now. Answers whether.
   * `isMore` says that output follows now. A snapshot that is on its way or not parsed yet is waited for: there is never more than one skip in the time that
   * this takes and the terminal then falls behind anew.
   */
  #keepUp(isMore: boolean): boolean {
    const { position } = this;
    if (!position || this.status.phase !== "live") return false;
    // What was there when this page came is shown whole, unless more follows.
    const shown = position.offset - (isMore ? 0 : this.#options.terminal.waitingBytes);
    if (!this.#isBehind(shown)) return false;
    const dropped = this.#options.terminal.drop();
    this.#skippedFrom ??= position.offset - dropped;
    this.position = null;
    this.#attach();
    return true;
  }

  #isBehind(offset: number): boolean {
    const { isWhole, terminal } = this.#options;
    if (isWhole === true || this.#older || this.#isSnapshotDue || offset < this.#head) return false;
    const { lagMs } = terminal;
    if (lagMs > BEHIND_MS) return true;
    const isAwaited = performance.now() - this.#typedAt < TYPED_MS;
    return isAwaited && lagMs > BEHIND_TYPED_MS && terminal.waitingBytes >= BEHIND_TYPED_BYTES;
  }

  /** Bytes are missing or doubled: never show them, ask for the screen. */
  #hole(): void {
    this.position = null;
    this.#failures++;
    if (this.#failures > MAX_REATTACH) {
      this.#detach();
      this.#set({ phase: "refused", error: { code: "internal", message: "" } });
      return;
    }
    this.#attach();
  }

  #consume(channel: number, bytes: number): void {
    // Late callbacks of an older channel must not count on this one.
    if (channel !== this.#channel) return;
    this.#consumed += bytes;
    const grant = this.#consumed + this.#window;
    if (grant - this.#granted < CREDIT_STEP_BYTES) return;
    this.#granted = grant;
    this.#options.socket.sendFrame(
      encodeFrame({
        kind: FrameKind.Credit,
        flags: 0,
        channel,
        epoch: this.position?.epoch ?? 0,
        session: this.#session,
        offset: BigInt(grant),
      }),
    );
  }

  #sendWish(): void {
    if (!this.#wish || this.#channel === null || !this.#options.writer || !this.#options.maySize) return;
    this.#options.socket.sendFrame(
      encodeFrame({
        kind: FrameKind.Resize,
        flags: 0,
        channel: this.#channel,
        epoch: this.position?.epoch ?? 0,
        session: this.#session,
        offset: 0n,
        payload: encodeSize(this.#wish),
      }),
    );
  }

  #set(change: Partial<AttachmentStatus>): void {
    const since =
      change.phase !== undefined && change.phase !== this.status.phase ? Date.now() : this.status.since;
    this.status = { ...this.status, ...change, since };
    this.#options.onStatus?.(this.status);
  }
}
