/**
 * Input of one viewer: numbered, acknowledged, and either written exactly once or reported.
 * It knows no socket and no DOM; the attachment hands it a way to send.
 */
import { INPUT_WINDOW_BYTES, MAX_INPUT_BYTES } from "@/wire/limits";

/** Input older than this is not sent after a reconnect: the screen it was typed at is gone. */
export const RESEND_WITHIN_MS = 10_000;
/** After a reconnect, the machine may still be writing what it took before: acknowledgements of it may come this late. */
const DOUBT_MS = 2_000;
/** Input that may wait here. Above it, typing is refused: a person must not believe that it goes somewhere. */
export const MAX_WAITING_BYTES = 32 * 1024 * 1024;

/** Input that did not reach the terminal, in the order in which it was typed. */
export interface NotDelivered {
  bytes: Uint8Array;
  /** Error code of the refusal; `too_old` after a long pause, `uncertain` when the machine no longer knows, `too_large` when the queue is full. */
  reason: string;
}

export interface InputPiece {
  sequence: number;
  /** True if the same paste goes on. */
  isMore: boolean;
  bytes: Uint8Array;
}

interface Waiting {
  bytes: Uint8Array;
  isMore: boolean;
  /** Pieces of one paste share this: they are kept or given up together. */
  group: number;
  at: number;
}
interface Sent extends Waiting {
  sequence: number;
}

interface Doubtful extends Sent {
  /** First number after the gap. An acknowledgement from there on says nothing about what is before it. */
  gapEnd: number;
}

export interface InputEvents {
  notDelivered(lost: NotDelivered): void;
  /** The numbers must be agreed anew: attach again and call {@link InputWriter.opened}. */
  resync(): void;
  /** Bytes that have been typed and not yet acknowledged have changed. */
  pending(bytes: number): void;
}

export function randomWriterId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class InputWriter {
  readonly id: string;
  #events: InputEvents;
  #send: ((piece: InputPiece) => boolean) | null = null;
  #waiting: Waiting[] = [];
  #sent: Sent[] = [];
  #sentBytes = 0;
  #waitingBytes = 0;
  /** Too old to be sent again, but perhaps on its way inside the machine: told unless it is acknowledged soon. */
  #doubtful: Doubtful[] = [];
  #doubtTimer: ReturnType<typeof setTimeout> | undefined;
  /**
   * Numbers are never used twice: the machine could take new bytes for old ones. It allows a gap after opening, and
   * understands it: what was given up is not continued by what comes behind the gap.
   */
  #next = 1;
  #highestAcked = 0;
  #groups = 0;

  constructor(events: InputEvents, id = randomWriterId()) {
    this.id = id;
    this.#events = events;
  }

  get pendingBytes(): number {
    return this.#sentBytes + this.#waitingBytes;
  }

  /** Takes what a person typed or pasted. One call is one unit: no other writer's bytes come between. */
  push(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    if (this.#waitingBytes + bytes.length > MAX_WAITING_BYTES) {
      this.#events.notDelivered({ bytes, reason: "too_large" });
      return;
    }
    const group = ++this.#groups;
    const at = Date.now();
    for (let from = 0; from < bytes.length; from += MAX_INPUT_BYTES) {
      const piece = bytes.subarray(from, from + MAX_INPUT_BYTES);
      this.#waiting.push({ bytes: piece, isMore: from + MAX_INPUT_BYTES < bytes.length, group, at });
    }
    this.#waitingBytes += bytes.length;
    this.#flush();
    this.#events.pending(this.pendingBytes);
  }

  /** The writer is open; `acked` is the highest number that reached the terminal. */
  opened(acked: number, send: (piece: InputPiece) => boolean): void {
    this.#doubtful = this.#doubtful.filter((piece) => piece.sequence > acked || acked >= piece.gapEnd);
    this.#sent = this.#sent.filter((piece) => piece.sequence > acked);
    this.#count();
    this.#next = Math.max(this.#next, acked + 1);
    const oldest = this.#sent[0] ?? this.#waiting[0];
    if (oldest && acked < this.#highestAcked) this.#giveUp("uncertain");
    // All or nothing: the end of a line without its beginning is worse than neither.
    else if (oldest && Date.now() - oldest.at > RESEND_WITHIN_MS) this.#doubt();
    this.#highestAcked = Math.max(this.#highestAcked, acked);
    this.#send = send;
    for (const piece of this.#sent) {
      if (!this.#send?.(piece)) {
        this.#send = null;
        break;
      }
    }
    this.#flush();
    this.#events.pending(this.pendingBytes);
  }

  /** The way to the machine is gone; what was sent keeps its numbers until {@link opened} tells what arrived. */
  lost(): void {
    this.#send = null;
  }

  /** An answer to the piece with this number; `refused` is the error code if it was not written. */
  acknowledged(sequence: number, refused: string | null): void {
    this.#doubtful = this.#doubtful.filter((piece) => piece.sequence !== sequence);
    if (refused === null) {
      this.#highestAcked = Math.max(this.#highestAcked, sequence);
      this.#sent = this.#sent.filter((piece) => piece.sequence > sequence);
      this.#count();
      this.#flush();
      this.#events.pending(this.pendingBytes);
      return;
    }
    const isOurs = this.#sent.some((piece) => piece.sequence === sequence);
    if (!isOurs) return;
    // Everything behind a refused piece is out of order now; the rest is told too, and the numbers agreed anew.
    const refusedPieces = this.#sent.filter((piece) => piece.sequence >= sequence);
    const groups = new Set(refusedPieces.map((piece) => piece.group));
    const alsoLost = this.#waiting.filter((piece) => groups.has(piece.group));
    this.#sent = this.#sent.filter((piece) => piece.sequence < sequence);
    this.#waiting = this.#waiting.filter((piece) => !groups.has(piece.group));
    this.#count();
    this.#next++;
    this.#send = null;
    this.#events.notDelivered({ bytes: join([...refusedPieces, ...alsoLost]), reason: refused });
    this.#events.pending(this.pendingBytes);
    this.#events.resync();
  }

  #flush(): void {
    while (this.#send) {
      const piece = this.#waiting[0];
      if (!piece) return;
      if (this.#sent.length > 0 && this.#sentBytes + piece.bytes.length > INPUT_WINDOW_BYTES) return;
      const sequence = this.#next;
      if (!this.#send({ sequence, isMore: piece.isMore, bytes: piece.bytes })) {
        this.#send = null;
        return;
      }
      this.#next = sequence + 1;
      this.#waiting.shift();
      this.#sent.push({ ...piece, sequence });
      this.#sentBytes += piece.bytes.length;
      this.#waitingBytes -= piece.bytes.length;
    }
  }

  /** Gives up what is too old; what was sent already gets a moment to be acknowledged after all. */
  #doubt(): void {
    if (this.#sent.length === 0) {
      this.#giveUp("too_old");
      return;
    }
    const gapEnd = this.#next++;
    const waiting = this.#waiting.map((piece) => ({ ...piece, sequence: Infinity }));
    this.#doubtful.push(...[...this.#sent, ...waiting].map((piece) => ({ ...piece, gapEnd })));
    this.#sent = [];
    this.#waiting = [];
    this.#count();
    clearTimeout(this.#doubtTimer);
    this.#doubtTimer = setTimeout(() => {
      const lost = this.#doubtful;
      this.#doubtful = [];
      if (lost.length > 0) this.#events.notDelivered({ bytes: join(lost), reason: "too_old" });
    }, DOUBT_MS);
  }

  #giveUp(reason: string): void {
    const lost = join([...this.#sent, ...this.#waiting]);
    this.#next++;
    this.#sent = [];
    this.#waiting = [];
    this.#count();
    this.#events.notDelivered({ bytes: lost, reason });
  }

  #count(): void {
    this.#sentBytes = this.#sent.reduce((sum, piece) => sum + piece.bytes.length, 0);
    this.#waitingBytes = this.#waiting.reduce((sum, piece) => sum + piece.bytes.length, 0);
  }
}

function join(pieces: { bytes: Uint8Array }[]): Uint8Array {
  const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.bytes.length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece.bytes, at);
    at += piece.bytes.length;
  }
  return bytes;
}
