import { describe, expect, it } from "vitest";

import type { HistoryChunk, HistoryRun } from "@/api/types";

import { offsetAt, Replay, type ReplayState, stepsOf } from "./replay";

const size = { cols: 80, rows: 24 };
const text = "one two three é four";
const bytes = new TextEncoder().encode(text);
const base64 = (part: Uint8Array) => btoa(String.fromCharCode(...part));

function chunk(start: number, end: number, more: Partial<HistoryChunk> = {}): HistoryChunk {
  const next = end < bytes.length ? end : null;
  return {
    epoch: 1,
    from: start,
    start,
    end,
    at_ms: start * 1000,
    size,
    marks: [],
    resizes: [],
    data: base64(bytes.slice(start, end)),
    next,
    ...more,
  };
}
const run: HistoryRun = {
  epoch: 1,
  end: bytes.length,
  bytes: bytes.length,
  started_at: 0,
  duration_ms: 30_000,
  size,
  points: [0, 4, 8, 14].map((offset) => ({ offset, at_ms: offset * 1000 })),
  resizes: [],
  gaps: [],
};

/** A replay on a clock that the test moves. */
function bed(chunks: HistoryChunk[]) {
  let now = 0;
  let due: (() => void)[] = [];
  let shown = "";
  const states: ReplayState[] = [];
  const decoder = new TextDecoder();
  const replay = new Replay({
    run,
    screen: {
      reset: () => (shown = ""),
      resize: ({ cols, rows }) => (shown += `[${cols}x${rows}]`),
      write: (part, done) => {
        shown += decoder.decode(part, { stream: true });
        done();
      },
    },
    load: (offset, withScreen) => {
      const found =
        chunks.find((one) => one.end > offset && one.start <= offset) ??
        chunks.find((one) => one.start >= offset);
      const first = chunks[0];
      const answer = withScreen && !found?.screen && offset > 0 && first ? first : found;
      return Promise.resolve(answer ?? null);
    },
    onState: (state) => states.push(state),
    onError: (error) => {
      throw error;
    },
    now: () => now,
    soon: (callback) => due.push(callback),
  });
  const settle = async () => {
    for (let turn = 0; turn < 50; turn++) await Promise.resolve();
  };
  return {
    replay,
    states,
    shown: () => shown,
    async pass(ms: number) {
      now += ms;
      for (let turn = 0; turn < 20; turn++) {
        const ready = due;
        due = [];
        ready.forEach((callback) => callback());
        await settle();
      }
    },
  };
}

describe("the replay", () => {
  it("cuts a chunk where output came and never inside a character", () => {
    const inside = bytes.indexOf(0xc3) + 1;
    const steps = stepsOf(chunk(0, bytes.length, { marks: [{ offset: inside, at_ms: 99_000 }] }), 0);
    const parts = steps.map((step) => new TextDecoder("utf-8", { fatal: true }).decode(step.bytes));
    expect(parts.join("")).toBe(text);
    expect(steps.map((step) => step.atMs)).toEqual([0, 99_000]);
  });

  it("shows resizes at their place and skips what was shown", () => {
    const resized = chunk(0, 8, { resizes: [{ offset: 4, at_ms: 10, size: { cols: 10, rows: 5 } }] });
    const steps = stepsOf(resized, 2);
    expect(steps.map((step) => step.size?.cols ?? new TextDecoder().decode(step.bytes))).toEqual([
      "e ",
      10,
      "two ",
    ]);
  });

  it("finds the offset of a time", () => {
    expect([0, 3_999, 4_000, 60_000].map((ms) => offsetAt(run, ms))).toEqual([0, 0, 4, 14]);
  });

  it("plays in time, faster if wanted, and skips idle time", async () => {
    const { replay, shown, pass, states } = bed([chunk(0, 4), chunk(4, 8), chunk(8, bytes.length)]);
    replay.setSkipsIdle(false);
    await replay.seek(0);
    expect(shown()).toBe("one ");
    replay.play();
    await pass(3_900);
    expect(shown()).toBe("one ");
    await pass(200);
    expect(shown()).toBe("one two ");
    replay.setSpeed(4);
    await pass(1_000);
    expect(shown()).toBe(text);
    await replay.seek(0);
    replay.setSpeed(1);
    replay.setSkipsIdle(true);
    await pass(400);
    await pass(400);
    expect(shown()).toContain("two ");
    for (let turn = 0; turn < 10; turn++) await pass(1_000);
    expect(shown()).toBe(text);
    expect(states.at(-1)).toMatchObject({ isAtEnd: true, isPlaying: false });
  });

  it("shows after a jump what was there then, by way of a stored screen", async () => {
    const screen = base64(new TextEncoder().encode("SCREEN "));
    const { replay, shown } = bed([chunk(0, 4), chunk(4, 8, { screen }), chunk(8, bytes.length)]);
    await replay.seek(5_000);
    expect(shown()).toBe("SCREEN two ");
    await replay.seek(0);
    expect(shown()).toBe("one ");
  });

  it("tells what is missing", async () => {
    const { replay, states } = bed([chunk(4, bytes.length, { from: 0 })]);
    await replay.seek(0);
    expect(states.at(-1)?.missing).toBeNull();
    const later = bed([chunk(0, 4, { next: 4 }), chunk(8, bytes.length, { from: 4 })]);
    later.replay.play();
    await later.replay.seek(8_500);
    expect(later.states.at(-1)?.missing).toBe(4);
  });
});
