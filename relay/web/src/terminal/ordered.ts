/**
 * Brings writes, resizes and resets to a terminal in the order in which they came.
 *
 * xterm.js parses writes later but resizes and resets at once; without this, a resize would overtake the
 * bytes before it.
 */
import type { TermSize } from "@/api/types";

import { slicesOf } from "./slices";

/** What this needs of xterm.js. */
export interface TermLike {
  readonly cols: number;
  readonly rows: number;
  write(data: Uint8Array, done?: () => void): void;
  resize(cols: number, rows: number): void;
  reset(): void;
}

/** Ends an unfinished escape sequence. */
const CANCEL = Uint8Array.of(0x18);
/** Slices that are inside the terminal at a time: one that is parsed, one that follows it without a pause. */
const FED_SLICES = 2;

interface Write {
  bytes: Uint8Array;
  done?: () => void;
  /** When it came. */
  at: number;
  /** Cut only when it is the next: the size that holds then is the one at which it is parsed. */
  slices?: Uint8Array[];
}
type Step = Write | { run: () => void };

export class OrderedTerminal {
  #term: TermLike;
  #steps: Step[] = [];
  #writing = 0;
  #isPumping = false;
  #isDisposed = false;
  /** Called each time some milliseconds' work has been parsed. */
  onSlice: (() => void) | null = null;

  constructor(term: TermLike) {
    this.#term = term;
  }

  write(bytes: Uint8Array, done?: () => void): void {
    this.#push({ bytes, done, at: performance.now() });
  }

  resize(size: TermSize): void {
    this.run(() => this.#term.resize(size.cols, size.rows));
  }

  /** Sets the terminal anew, also out of a sequence or a character that was cut: xterm.js's own reset stays in it. */
  reset(): void {
    this.write(CANCEL);
    this.run(() => this.#term.reset());
  }

  /** Calls `action` when everything before it has been parsed, before anything after it is. */
  run(action: () => void): void {
    this.#push({ run: action });
  }

  /** For how long the next bytes have waited, in milliseconds; 0 when none wait. */
  get lagMs(): number {
    const next = this.#steps.find((step): step is Write => "bytes" in step);
    return next ? performance.now() - next.at : 0;
  }

  /** Bytes that wait, about. */
  get waitingBytes(): number {
    return this.#steps.reduce((sum, step) => sum + ("bytes" in step ? step.bytes.length : 0), 0);
  }

  /**
   * Gives up the bytes that wait, without calling their `done`; resizes, resets and actions stay, in order. Answers how
   * many bytes these were, about.
   */
  drop(): number {
    const bytes = this.waitingBytes;
    this.#steps = this.#steps.filter((step) => "run" in step);
    return bytes;
  }

  dispose(): void {
    this.#isDisposed = true;
    this.#steps = [];
  }

  #push(step: Step): void {
    if (this.#isDisposed) return;
    this.#steps.push(step);
    this.#pump();
  }

  #pump(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    while (!this.#isDisposed) {
      const step = this.#steps[0];
      if (!step) break;
      if ("run" in step) {
        if (this.#writing > 0) break;
        this.#steps.shift();
        step.run();
        continue;
      }
      if (this.#writing >= FED_SLICES) break;
      step.slices ??= [...slicesOf(step.bytes, this.#term)].reverse();
      const slice = step.slices.pop() ?? step.bytes;
      const isLast = step.slices.length === 0;
      if (isLast) this.#steps.shift();
      this.#writing++;
      this.#term.write(slice, () => {
        this.#writing--;
        if (this.#isDisposed) return;
        if (isLast) step.done?.();
        this.onSlice?.();
        this.#pump();
      });
    }
    this.#isPumping = false;
  }
}
