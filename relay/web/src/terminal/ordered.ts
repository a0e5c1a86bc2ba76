/**
 * Brings writes, resizes and resets to a terminal in the order in which they came.
 *
 * xterm.js parses writes later but resizes and resets at once; without this, a resize would overtake the
 * bytes before it.
 */
import type { TermSize } from "@/api/types";

/** What this needs of xterm.js. */
export interface TermLike {
  write(data: Uint8Array, done?: () => void): void;
  resize(cols: number, rows: number): void;
  reset(): void;
}

type Step = { bytes: Uint8Array; done?: () => void } | { run: () => void };

export class OrderedTerminal {
  #term: TermLike;
  #steps: Step[] = [];
  #writing = 0;
  #isPumping = false;
  #isDisposed = false;

  constructor(term: TermLike) {
    this.#term = term;
  }

  write(bytes: Uint8Array, done?: () => void): void {
    this.#push({ bytes, done });
  }

  resize(size: TermSize): void {
    this.run(() => this.#term.resize(size.cols, size.rows));
  }

  reset(): void {
    this.run(() => this.#term.reset());
  }

  /** Calls `action` when everything before it has been parsed, before anything after it is. */
  run(action: () => void): void {
    this.#push({ run: action });
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
      this.#steps.shift();
      this.#writing++;
      this.#term.write(step.bytes, () => {
        this.#writing--;
        if (this.#isDisposed) return;
        step.done?.();
        this.#pump();
      });
    }
    this.#isPumping = false;
  }
}
