/**
 * The one WebSocket of a page: opens with a ticket, comes back by itself, and always knows what it is.
 * It knows channels and messages, but nothing of terminals or stores.
 */
import type { BrowserMessage, ServerMessage, WireError } from "@/api/types";

import { decodeFrame, type Frame } from "./frame";

export const SUBPROTOCOL = "claudenest.browser.v1";
/** First pause before a new attempt; doubles up to {@link MAX_PAUSE_MS}, with full jitter. */
const MIN_PAUSE_MS = 500;
const MAX_PAUSE_MS = 15_000;
/** Jitter never goes below this, so that a refusing relay is not hammered. */
const FLOOR_PAUSE_MS = 150;
/** A socket that says nothing for this long is asked whether it lives. */
const QUIET_MS = 15_000;
/** No word for this long after the question ends the socket. */
const PONG_WAIT_MS = 8_000;
/** After sleep the answer should come faster: a person is looking. */
const WAKE_WAIT_MS = 3_000;
/** Ticket and handshake together may take this long. */
const OPEN_TIMEOUT_MS = 15_000;
const TICK_MS = 2_000;
/** A tick that comes this much too late means that the computer slept. */
const SLEEP_GAP_MS = 8_000;

export type LinkState =
  | { phase: "connecting"; since: number }
  | { phase: "open"; since: number }
  | { phase: "reconnecting"; since: number; retryAt: number | null; reason: string | null }
  | { phase: "logged_out"; since: number; reason: string | null };

/** What the socket needs of a browser's `WebSocket`. */
export interface SocketLike {
  binaryType: BinaryType;
  readonly readyState: number;
  onopen: ((event: Event) => void) | null;
  onclose: ((event: CloseEvent) => void) | null;
  onerror: ((event: Event) => void) | null;
  onmessage: ((event: MessageEvent) => void) | null;
  send(data: string | Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

/** Refusal of a ticket because nobody is logged in. */
export class NotLoggedIn extends Error {
  override name = "NotLoggedIn";
}

export interface SocketOptions {
  url: string;
  /** Gets a single-use ticket; throws {@link NotLoggedIn} when there is no login. */
  fetchTicket: () => Promise<string>;
  open?: (url: string, protocol: string) => SocketLike;
  random?: () => number;
}

/** What happens on one channel. */
export interface ChannelHandler {
  message(message: ChannelMessage): void;
  frame(frame: Frame): void;
}
export type ChannelMessage = Extract<ServerMessage, { channel: number }>;
export type UserMessage = Exclude<ServerMessage, ChannelMessage | { type: "pong" | "closing" }>;

type Timer = ReturnType<typeof setTimeout>;

export class LiveSocket {
  state: LinkState = { phase: "connecting", since: Date.now() };
  #options: Required<SocketOptions>;
  #socket: SocketLike | null = null;
  #isReady = false;
  #isStopped = true;
  /** Grows with every attempt; late events of an older one are dropped. */
  #attempt = 0;
  #failures = 0;
  #retry: Timer | undefined;
  #openTimeout: Timer | undefined;
  #ticker: ReturnType<typeof setInterval> | undefined;
  #lastTick = 0;
  #lastMessage = 0;
  #pongDeadline: number | null = null;
  #nonce = 0;
  #nextChannel = 1;
  #channels = new Map<number, ChannelHandler>();
  #stateListeners = new Set<(state: LinkState) => void>();
  #messageListeners = new Set<(message: UserMessage) => void>();

  constructor(options: SocketOptions) {
    this.#options = {
      open: (url, protocol) => new WebSocket(url, protocol) as unknown as SocketLike,
      random: Math.random,
      ...options,
    };
  }

  get isReady(): boolean {
    return this.#isReady;
  }

  start(): void {
    if (!this.#isStopped) return;
    this.#isStopped = false;
    this.#failures = 0;
    this.#lastTick = Date.now();
    this.#ticker = setInterval(() => this.#tick(), TICK_MS);
    this.#setState({ phase: "connecting", since: Date.now() });
    void this.#connect();
  }

  stop(): void {
    this.#isStopped = true;
    clearInterval(this.#ticker);
    clearTimeout(this.#retry);
    this.#drop();
    this.#channels.clear();
  }

  /** Tries again at once, for a person who asks or a network that came back. */
  retryNow(): void {
    if (this.#isStopped || this.#isReady) return;
    if (this.state.phase === "logged_out") return;
    this.#failures = 0;
    clearTimeout(this.#retry);
    this.#drop();
    void this.#connect();
  }

  /** Cuts the connection as a network would; it comes back by itself. For tests. */
  cut(): void {
    if (this.#isReady) this.#lost("cut");
  }

  /** The page woke up or came to the front: find out quickly whether the socket still lives. */
  wake(): void {
    if (this.#isStopped) return;
    if (this.#isReady) this.#ask(WAKE_WAIT_MS);
    else this.retryNow();
  }

  /** Sends a message; false when there is no open socket, and then nothing was sent. */
  send(message: BrowserMessage): boolean {
    if (!this.#isReady || !this.#socket) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  /** Sends an encoded frame; false when there is no open socket. */
  sendFrame(bytes: Uint8Array<ArrayBuffer>): boolean {
    if (!this.#isReady || !this.#socket) return false;
    this.#socket.send(bytes);
    return true;
  }

  /** Reserves a channel number that no frame in flight can belong to. */
  openChannel(handler: ChannelHandler): number {
    for (let tries = 0; tries < 65_535; tries++) {
      const channel = this.#nextChannel;
      this.#nextChannel = channel === 65_535 ? 1 : channel + 1;
      if (!this.#channels.has(channel)) {
        this.#channels.set(channel, handler);
        return channel;
      }
    }
    throw new Error("every channel of this page is in use");
  }

  closeChannel(channel: number): void {
    this.#channels.delete(channel);
  }

  onState(listener: (state: LinkState) => void): () => void {
    this.#stateListeners.add(listener);
    return () => this.#stateListeners.delete(listener);
  }

  onMessage(listener: (message: UserMessage) => void): () => void {
    this.#messageListeners.add(listener);
    return () => this.#messageListeners.delete(listener);
  }

  async #connect(): Promise<void> {
    const attempt = ++this.#attempt;
    const isCurrent = () => attempt === this.#attempt && !this.#isStopped;
    if (this.state.phase === "reconnecting") this.#setState({ ...this.state, retryAt: null });
    this.#openTimeout = setTimeout(() => {
      if (isCurrent()) this.#lost("timeout");
    }, OPEN_TIMEOUT_MS);
    let ticket: string;
    try {
      ticket = await this.#options.fetchTicket();
    } catch (error) {
      if (!isCurrent()) return;
      if (error instanceof NotLoggedIn) this.#logOut(error.message || null);
      else this.#lost(error instanceof Error ? error.message : null);
      return;
    }
    if (!isCurrent()) return;
    const socket = this.#options.open(this.#options.url, SUBPROTOCOL);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    socket.onopen = () => {
      if (isCurrent()) socket.send(JSON.stringify({ type: "auth", ticket } satisfies BrowserMessage));
    };
    socket.onmessage = (event: MessageEvent) => {
      if (isCurrent()) this.#received(event.data);
    };
    socket.onclose = (event) => {
      if (isCurrent()) this.#lost(event.reason || null);
    };
    socket.onerror = () => {
      // `close` follows and says more.
    };
  }

  #received(data: unknown): void {
    this.#lastMessage = Date.now();
    this.#pongDeadline = null;
    if (data instanceof ArrayBuffer) {
      let frame: Frame;
      try {
        frame = decodeFrame(data);
      } catch {
        this.#lost("malformed frame");
        return;
      }
      // Frames of a channel that was just closed are still on their way: drop them.
      this.#channels.get(frame.channel)?.frame(frame);
      return;
    }
    let message: ServerMessage;
    try {
      message = JSON.parse(String(data)) as ServerMessage;
    } catch {
      this.#lost("malformed message");
      return;
    }
    switch (message.type) {
      case "ready":
        clearTimeout(this.#openTimeout);
        this.#failures = 0;
        this.#isReady = true;
        this.#emit(message);
        this.#setState({ phase: "open", since: Date.now() });
        break;
      case "closing":
        this.#closing(message.error, message.retry_after_ms ?? null);
        break;
      case "attached":
      case "detached":
      case "link":
        this.#channels.get(message.channel)?.message(message);
        break;
      case "pong":
        break;
      case "machine":
      case "machine_removed":
      case "session":
      case "session_removed":
      case "approval":
      case "approval_removed":
      case "approval_answering":
      case "lock":
      case "lock_removed":
        this.#emit(message);
        break;
      // Messages of a newer relay are none of our business.
    }
  }

  #closing(error: WireError, retryAfterMs: number | null): void {
    if (retryAfterMs === null) this.#logOut(error.message);
    else this.#lost(error.message, retryAfterMs);
  }

  #lost(reason: string | null, pauseMs?: number): void {
    this.#drop();
    if (this.#isStopped) return;
    const ceiling = Math.min(MAX_PAUSE_MS, MIN_PAUSE_MS * 2 ** this.#failures);
    this.#failures++;
    const pause = pauseMs ?? Math.max(FLOOR_PAUSE_MS, this.#options.random() * ceiling);
    const now = Date.now();
    const since = this.state.phase === "reconnecting" ? this.state.since : now;
    this.#setState({ phase: "reconnecting", since, retryAt: now + pause, reason });
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => void this.#connect(), pause);
  }

  #logOut(reason: string | null): void {
    this.#drop();
    clearTimeout(this.#retry);
    this.#setState({ phase: "logged_out", since: Date.now(), reason });
  }

  /** Ends the socket without waiting for the other side, which may be gone. */
  #drop(): void {
    this.#attempt++;
    this.#isReady = false;
    this.#pongDeadline = null;
    clearTimeout(this.#openTimeout);
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
    socket.close(1000);
  }

  #tick(): void {
    const now = Date.now();
    const gap = now - this.#lastTick;
    this.#lastTick = now;
    if (gap > TICK_MS + SLEEP_GAP_MS) {
      this.wake();
      return;
    }
    if (!this.#isReady) return;
    if (this.#pongDeadline !== null && now > this.#pongDeadline) this.#lost("no answer");
    else if (this.#pongDeadline === null && now - this.#lastMessage > QUIET_MS) this.#ask(PONG_WAIT_MS);
  }

  #ask(waitMs: number): void {
    this.#pongDeadline = Math.min(this.#pongDeadline ?? Infinity, Date.now() + waitMs);
    this.#nonce = (this.#nonce + 1) >>> 0;
    this.send({ type: "ping", nonce: this.#nonce });
  }

  #setState(state: LinkState): void {
    this.state = state;
    for (const listener of [...this.#stateListeners]) listener(state);
  }

  #emit(message: UserMessage): void {
    for (const listener of [...this.#messageListeners]) listener(message);
  }
}
