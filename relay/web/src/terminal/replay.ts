/**
 * Plays past output into a terminal: loads chunks as they are needed, keeps the time, jumps by way of stored screens. It
 * has no writer and listens to no key: nothing that a recording does can reach anybody.
 */
import type { HistoryChunk, HistoryRun, TermSize } from "@/api/types";

/** What is shown at a moment of the recording. */
interface Step {
  atMs: number;
  offset: number;
  bytes?: Uint8Array;
  size?: TermSize;
}

/** Where output goes; xterm.js in the page, a plain recorder in tests. */
export interface ReplayScreen {
  reset(size: TermSize): void;
  resize(size: TermSize): void;
  write(bytes: Uint8Array, done: () => void): void;
}

export interface ReplayState {
  positionMs: number;
  isPlaying: boolean;
  isLoading: boolean;
  /** Everything was shown. */
  isAtEnd: boolean;
  /** Bytes that are missing at the position, shown for a moment. */
  missing: number | null;
  /** Offset of the next byte. */
  offset: number;
}

export interface ReplayOptions {
  run: HistoryRun;
  screen: ReplayScreen;
  load(offset: number, withScreen: boolean): Promise<HistoryChunk | null>;
  onState(state: ReplayState): void;
  onError(error: unknown): void;
  /** The clock, in milliseconds. */
  now?: () => number;
  /** Calls back soon, once. */
  soon?: (callback: () => void) => void;
}

/** Chunks are loaded ahead until so many steps wait. */
const AHEAD_STEPS = 200;
/** A pause that is skipped lasts this long instead. */
const SKIPPED_PAUSE_MS = 300;
/** Pauses from here on are skipped, if the person wants that. */
export const IDLE_MS = 2_000;
/** How long a gap is told. */
const GAP_SHOWN_MS = 3_000;
/** Bytes that xterm.js may have unparsed: more would make the page stiff. */
const MAX_UNPARSED_BYTES = 512 * 1024;

export function decodeBase64(text: string): Uint8Array {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at++) bytes[at] = raw.charCodeAt(at);
  return bytes;
}

/** Offset up to which output had come at a time, as far as the thinned time line tells. */
export function offsetAt(run: HistoryRun, ms: number): number {
  let low = 0;
  let high = run.points.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((run.points[middle]?.at_ms ?? 0) <= ms) low = middle + 1;
    else high = middle;
  }
  return low === 0 ? (run.points[0]?.offset ?? 0) : (run.points[low - 1]?.offset ?? 0);
}

/** A chunk as steps; bytes below `from` were shown before. */
export function stepsOf(chunk: HistoryChunk, from: number): Step[] {
  const data = decodeBase64(chunk.data);
  const cuts = [
    { offset: chunk.start, atMs: chunk.at_ms },
    ...chunk.marks.map((mark) => ({ offset: mark.offset, atMs: mark.at_ms })),
  ];
  const steps: Step[] = [];
  let done = Math.max(0, from - chunk.start);
  for (let index = 0; index < cuts.length; index++) {
    const cut = cuts[index];
    if (!cut) continue;
    let end = (cuts[index + 1]?.offset ?? chunk.end) - chunk.start;
    // Never inside of a character: xterm.js may lose one that is cut.
    while (end < data.length && ((data[end] ?? 0) & 0xc0) === 0x80) end++;
    for (const resize of chunk.resizes) {
      const at = resize.offset - chunk.start;
      if (at < done || at >= end || (index > 0 && at < cut.offset - chunk.start)) continue;
      if (at > done)
        steps.push({ atMs: cut.atMs, offset: chunk.start + done, bytes: data.subarray(done, at) });
      steps.push({ atMs: resize.at_ms, offset: resize.offset, size: resize.size });
      done = at;
    }
    if (end > done) {
      steps.push({ atMs: cut.atMs, offset: chunk.start + done, bytes: data.subarray(done, end) });
      done = end;
    }
  }
  for (const resize of chunk.resizes) {
    if (resize.offset === chunk.end && resize.offset > from)
      steps.push({ atMs: resize.at_ms, offset: resize.offset, size: resize.size });
  }
  return steps;
}

export class Replay {
  #options: ReplayOptions;
  #now: () => number;
  #soon: (callback: () => void) => void;
  #steps: Step[] = [];
  /** Offset of the next chunk; null at the end. */
  #next: number | null = 0;
  #shown = 0;
  #position = 0;
  #since = 0;
  #speed = 1;
  #skipsIdle = true;
  #isPlaying = false;
  #loading: Promise<void> | null = null;
  /** Grows with every jump: what an older one loaded is dropped. */
  #jump = 0;
  #unparsed = 0;
  #gap: { bytes: number; until: number } | null = null;
  #isTicking = false;
  #isDisposed = false;

  constructor(options: ReplayOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#soon = options.soon ?? ((callback) => requestAnimationFrame(callback));
  }

  get duration(): number {
    return this.#options.run.duration_ms;
  }
  get speed(): number {
    return this.#speed;
  }

  play(): void {
    if (this.#isPlaying) return;
    if (this.#isAtEnd()) {
      void this.seek(0).then(() => this.play());
      return;
    }
    this.#isPlaying = true;
    this.#since = this.#now();
    this.#tick();
  }

  pause(): void {
    this.#settle();
    this.#isPlaying = false;
    this.#tell();
  }

  setSpeed(speed: number): void {
    this.#settle();
    this.#speed = Math.min(64, Math.max(0.25, speed));
    this.#tell();
  }

  setSkipsIdle(skips: boolean): void {
    this.#skipsIdle = skips;
  }

  dispose(): void {
    this.#isDisposed = true;
    this.#jump++;
  }

  /** Shows the state at a time of the recording. */
  async seek(ms: number): Promise<void> {
    const target = Math.min(Math.max(0, ms), this.duration);
    const jump = ++this.#jump;
    this.#position = target;
    this.#since = this.#now();
    this.#steps = [];
    this.#loading = null;
    this.#gap = null;
    this.#tell(true);
    try {
      const first = await this.#options.load(offsetAt(this.#options.run, target), true);
      if (jump !== this.#jump) return;
      this.#options.screen.reset(first?.size ?? this.#options.run.size);
      this.#shown = first?.start ?? 0;
      this.#next = null;
      if (first?.screen) await this.#write(decodeBase64(first.screen));
      if (first) this.#take(first);
      while (jump === this.#jump) {
        await this.#show(target);
        if (this.#steps.length > 0 || this.#next === null) break;
        await this.#load();
      }
    } catch (error) {
      if (jump === this.#jump) this.#options.onError(error);
    }
    if (jump !== this.#jump) return;
    this.#since = this.#now();
    this.#tell();
    if (this.#isPlaying) this.#tick();
  }

  #isAtEnd(): boolean {
    return this.#steps.length === 0 && this.#next === null && this.#position >= this.duration;
  }

  /** Moves the position to now. */
  #settle(): void {
    const now = this.#now();
    if (this.#isPlaying) {
      this.#position = Math.min(this.duration, this.#position + (now - this.#since) * this.#speed);
    }
    this.#since = now;
  }

  #take(chunk: HistoryChunk): void {
    if (chunk.start > this.#shown && chunk.from < chunk.start) {
      this.#gap = { bytes: chunk.start - chunk.from, until: this.#now() + GAP_SHOWN_MS };
    }
    this.#steps.push(...stepsOf(chunk, this.#shown));
    this.#shown = Math.max(this.#shown, chunk.end);
    this.#next = chunk.next ?? null;
  }

  /** Loads the next chunk, once at a time. */
  #load(): Promise<void> {
    const next = this.#next;
    if (next === null) return Promise.resolve();
    if (this.#loading) return this.#loading;
    const jump = this.#jump;
    const loading = this.#options.load(next, false).then((chunk) => {
      if (jump !== this.#jump) return;
      this.#loading = null;
      if (chunk) this.#take(chunk);
      else this.#next = null;
    });
    this.#loading = loading;
    return loading;
  }

  #write(bytes: Uint8Array): Promise<void> {
    return new Promise((done) => this.#options.screen.write(bytes, done));
  }

  /** Shows every step up to a time. */
  async #show(until: number): Promise<void> {
    const jump = this.#jump;
    while (jump === this.#jump && this.#steps[0] && this.#steps[0].atMs <= until) {
      const step = this.#steps.shift();
      if (step?.size) this.#options.screen.resize(step.size);
      if (!step?.bytes) continue;
      this.#unparsed += step.bytes.length;
      const written = this.#write(step.bytes).then(() => {
        this.#unparsed -= step.bytes?.length ?? 0;
      });
      if (this.#unparsed > MAX_UNPARSED_BYTES || !this.#isPlaying) await written;
    }
  }

  #tick(): void {
    if (this.#isTicking || this.#isDisposed) return;
    this.#isTicking = true;
    this.#soon(() => {
      this.#isTicking = false;
      if (!this.#isPlaying || this.#isDisposed) return;
      void this.#advance();
    });
  }

  async #advance(): Promise<void> {
    const jump = this.#jump;
    try {
      if (this.#steps.length < AHEAD_STEPS && this.#next !== null) {
        const loading = this.#load();
        if (this.#steps.length === 0) {
          // The recording waits for its bytes.
          this.#settle();
          await loading;
          if (jump !== this.#jump) return;
          this.#since = this.#now();
        } else {
          loading.catch(() => undefined);
        }
      }
    } catch (error) {
      if (jump !== this.#jump) return;
      this.#isPlaying = false;
      this.#options.onError(error);
      this.#tell();
      return;
    }
    this.#settle();
    const next = this.#steps[0];
    const end = this.duration;
    if (this.#skipsIdle && next && next.atMs - this.#position > IDLE_MS) {
      this.#position = next.atMs - SKIPPED_PAUSE_MS;
    } else if (this.#skipsIdle && !next && this.#next === null) {
      this.#position = end;
    }
    await this.#show(this.#position);
    if (jump !== this.#jump) return;
    if (this.#isAtEnd()) this.#isPlaying = false;
    this.#tell();
    if (this.#isPlaying) this.#tick();
  }

  #tell(isLoading = false): void {
    if (this.#gap && this.#now() > this.#gap.until) this.#gap = null;
    this.#options.onState({
      positionMs: this.#position,
      isPlaying: this.#isPlaying,
      isLoading,
      isAtEnd: this.#isAtEnd(),
      missing: this.#gap?.bytes ?? null,
      offset: this.#steps[0]?.offset ?? this.#shown,
    });
  }
}
