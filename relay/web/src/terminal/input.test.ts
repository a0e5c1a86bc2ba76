import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { type InputPiece, InputWriter, MAX_WAITING_BYTES, type NotDelivered } from "./input";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (value: Uint8Array) => new TextDecoder().decode(value);

function make() {
  const lost: NotDelivered[] = [];
  const resync = vi.fn();
  const writer = new InputWriter({
    notDelivered: (item) => lost.push(item),
    resync,
    pending: () => undefined,
  });
  const sent: InputPiece[] = [];
  const send = (piece: InputPiece) => {
    sent.push(piece);
    return true;
  };
  return { writer, lost, resync, sent, send };
}

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

describe("input", () => {
  it("numbers from one, goes on after what was acknowledged", () => {
    const { writer, sent, send } = make();
    writer.push(bytes("a"));
    expect(sent).toHaveLength(0);
    writer.opened(0, send);
    writer.push(bytes("b"));
    expect(sent.map((piece) => [piece.sequence, text(piece.bytes)])).toEqual([
      [1, "a"],
      [2, "b"],
    ]);
    writer.acknowledged(2, null);
    expect(writer.pendingBytes).toBe(0);
    writer.lost();
    writer.opened(2, send);
    writer.push(bytes("c"));
    expect(sent.at(-1)?.sequence).toBe(3);
  });

  it("cuts a paste into frames with MORE and keeps the window", () => {
    const { writer, sent, send } = make();
    writer.opened(0, send);
    const paste = new Uint8Array(1024 * 1024).map((_, index) => index & 127);
    writer.push(paste);
    expect(sent).toHaveLength(4);
    for (let sequence = 1; sequence <= 16; sequence++) {
      expect(sent[sequence - 1]?.isMore).toBe(sequence < 16);
      expect(sent.length - sequence).toBeLessThan(4);
      writer.acknowledged(sequence, null);
    }
    expect(sent).toHaveLength(16);
    const joined = new Uint8Array(paste.length);
    sent.forEach((piece, index) => joined.set(piece.bytes, index * 65_536));
    // Comparing a million elements one by one would take seconds.
    expect(Buffer.from(joined).equals(paste)).toBe(true);
    expect(writer.pendingBytes).toBe(0);
  });

  it("sends young input again under the same numbers", () => {
    const { writer, lost, sent, send } = make();
    writer.opened(0, send);
    writer.push(bytes("one"));
    writer.push(bytes("two"));
    writer.lost();
    writer.push(bytes("three"));
    vi.advanceTimersByTime(9_000);
    sent.length = 0;
    writer.opened(1, send);
    expect(sent.map((piece) => [piece.sequence, text(piece.bytes)])).toEqual([
      [2, "two"],
      [3, "three"],
    ]);
    expect(lost).toEqual([]);
  });

  it("tells what is too old instead of sending half of it, and never uses a number twice", () => {
    const { writer, lost, sent, send } = make();
    writer.opened(0, send);
    writer.push(bytes("rm -rf "));
    writer.lost();
    vi.advanceTimersByTime(10_001);
    writer.push(bytes("/"));
    sent.length = 0;
    writer.opened(0, send);
    expect(sent).toEqual([]);
    writer.push(bytes("x"));
    expect(sent.map((piece) => piece.sequence)).toEqual([3]);
    vi.advanceTimersByTime(2_000);
    expect(lost.map((item) => [text(item.bytes), item.reason])).toEqual([["rm -rf /", "too_old"]]);
  });

  it("does not report what the machine acknowledges a little later", () => {
    const { writer, lost, send } = make();
    writer.opened(0, send);
    writer.push(bytes("a"));
    writer.lost();
    vi.advanceTimersByTime(10_001);
    writer.opened(0, send);
    writer.acknowledged(1, null);
    vi.advanceTimersByTime(5_000);
    expect(lost).toEqual([]);
  });

  it("does not guess when the machine has forgotten the numbers", () => {
    const { writer, lost, sent, send } = make();
    writer.opened(0, send);
    writer.push(bytes("a"));
    writer.push(bytes("b"));
    writer.acknowledged(1, null);
    writer.lost();
    sent.length = 0;
    writer.opened(0, send);
    expect(sent).toEqual([]);
    expect(lost.map((item) => item.reason)).toEqual(["uncertain"]);
  });

  it("reports a refusal with the rest of the same paste and agrees anew", () => {
    const { writer, lost, resync, sent, send } = make();
    writer.opened(0, send);
    writer.push(bytes("ok"));
    writer.push(new Uint8Array(6 * 65_536));
    writer.push(bytes("later"));
    expect(sent.at(-1)?.sequence).toBe(4);
    writer.acknowledged(1, null);
    writer.acknowledged(2, "machine_offline");
    expect(lost[0]?.reason).toBe("machine_offline");
    expect(lost[0]?.bytes.length).toBe(6 * 65_536);
    expect(resync).toHaveBeenCalledTimes(1);
    // Refusals of the frames behind it are answered already.
    writer.acknowledged(3, "conflict");
    expect(lost).toHaveLength(1);
    sent.length = 0;
    writer.opened(1, send);
    expect(sent.map((piece) => [piece.sequence, text(piece.bytes)])).toEqual([[7, "later"]]);
  });

  it("refuses more than it can hold, loudly", () => {
    const { writer, lost } = make();
    writer.push(new Uint8Array(MAX_WAITING_BYTES));
    writer.push(bytes("x"));
    expect(lost.map((item) => item.reason)).toEqual(["too_large"]);
  });

  it("delivers each byte exactly once or reports it, across random cuts", () => {
    for (let seed = 1; seed <= 200; seed++) {
      let state = seed;
      const random = (below: number) => {
        state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
        return state % below;
      };
      const { writer, lost, resync } = make();
      // The machine, as the agent does it: takes each number once, allows a gap after opening, and goes on
      // writing what it took when the connection is cut. The wire may lose what is on its way.
      let applied = 0;
      let taken = 0;
      let maySkip = true;
      const queue: InputPiece[] = [];
      const terminal: number[] = [];
      let wire: InputPiece[] = [];
      let acks: number[] = [];
      let isUp = false;
      const connect = () => {
        isUp = true;
        maySkip = true;
        wire = [];
        acks = [];
        writer.opened(applied, (piece) => {
          if (isUp) wire.push(piece);
          return isUp;
        });
      };
      const take = () => {
        const piece = wire.shift();
        if (!piece) return;
        if (piece.sequence <= applied) acks.push(piece.sequence);
        if (piece.sequence <= taken) return;
        expect(maySkip || piece.sequence === taken + 1).toBe(true);
        maySkip = false;
        taken = piece.sequence;
        queue.push(piece);
      };
      const apply = () => {
        const piece = queue.shift();
        if (!piece) return;
        applied = piece.sequence;
        terminal.push(...piece.bytes);
        if (isUp) acks.push(piece.sequence);
      };
      const typed: number[] = [];
      for (let step = 0; step < 300; step++) {
        switch (random(9)) {
          case 0:
          case 1:
          case 2: {
            const value = typed.length & 255;
            typed.push(value);
            writer.push(Uint8Array.of(value));
            break;
          }
          case 3:
            take();
            break;
          case 4:
          case 8:
            apply();
            break;
          case 5: {
            const ack = acks.shift();
            if (ack !== undefined) writer.acknowledged(ack, null);
            break;
          }
          case 6:
            vi.advanceTimersByTime(random(4_000));
            break;
          case 7:
            if (isUp) {
              isUp = false;
              writer.lost();
            } else connect();
        }
      }
      // The end: everything settles.
      while (queue.length > 0) apply();
      connect();
      while (wire.length > 0) take();
      while (queue.length > 0) apply();
      for (const ack of acks) writer.acknowledged(ack, null);
      vi.advanceTimersByTime(10_000);
      expect(writer.pendingBytes).toBe(0);
      expect(resync).not.toHaveBeenCalled();
      const reported = lost.flatMap((item) => [...item.bytes]);
      // Nothing vanishes. (What was cut while the machine still wrote it may be told as lost and arrive: told is safe.)
      expect(terminal.length + reported.length).toBeGreaterThanOrEqual(typed.length);
      expect(terminal.length).toBeLessThanOrEqual(typed.length);
      // What arrived is what was typed, in order, without the reported runs.
      let at = 0;
      for (const value of terminal) {
        while (at < typed.length && typed[at] !== value) at++;
        expect(at).toBeLessThan(typed.length);
        at++;
      }
    }
  });
});
