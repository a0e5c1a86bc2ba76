import { Terminal } from "@xterm/headless";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import type { BrowserMessage, ServerMessage } from "@/api/types";
import {
  decodeFrame,
  encodeFrame,
  encodeSize,
  FLAG_GAP,
  FLAG_REFUSED,
  type Frame,
  FrameKind,
  uuidBytes,
} from "@/wire/frame";
import { VIEWER_WINDOW_BYTES } from "@/wire/limits";
import type { ChannelHandler, ChannelMessage, LinkState, LiveSocket } from "@/wire/socket";

import { Attachment, type AttachmentStatus } from "./attachment";
import { OutputHash } from "./debug";
import { InputWriter } from "./input";
import { OrderedTerminal } from "./ordered";

const ID = "01010101-0101-0101-0101-010101010101";
const bytes = (text: string) => new TextEncoder().encode(text);

/** A socket that only records, with the server's side in the test's hand. */
class Wire {
  isReady = true;
  sent: BrowserMessage[] = [];
  frames: Frame[] = [];
  handlers = new Map<number, ChannelHandler>();
  listeners = new Set<(state: LinkState) => void>();
  #next = 1;
  send = (message: BrowserMessage) => {
    if (this.isReady) this.sent.push(message);
    return this.isReady;
  };
  sendFrame = (encoded: Uint8Array) => {
    if (this.isReady) this.frames.push(decodeFrame(encoded));
    return this.isReady;
  };
  openChannel = (handler: ChannelHandler) => {
    this.handlers.set(this.#next, handler);
    return this.#next++;
  };
  closeChannel = (channel: number) => void this.handlers.delete(channel);
  onState = (listener: (state: LinkState) => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };
  get channel(): number {
    return Math.max(...this.handlers.keys());
  }
  get attach() {
    return this.sent.filter((message) => message.type === "attach").at(-1) as Extract<
      BrowserMessage,
      { type: "attach" }
    >;
  }
  say(message: Record<string, unknown>): void {
    this.handlers
      .get(this.channel)
      ?.message({ channel: this.channel, ...message } as ServerMessage as ChannelMessage);
  }
  attached(acked: number | null = null, change: object = {}): void {
    this.say({ type: "attached", epoch: 0, head: 0, size: { cols: 80, rows: 24 }, acked, ...change });
  }
  frame(kind: FrameKind, offset: number, payload: Uint8Array, flags = 0, epoch = 0): void {
    const encoded = encodeFrame({
      kind,
      flags,
      channel: this.channel,
      epoch,
      session: uuidBytes(ID),
      offset: BigInt(offset),
      payload,
    });
    this.handlers.get(this.channel)?.frame(decodeFrame(encoded));
  }
  snapshot(offset: number, text: string, flags = 0, size = { cols: 80, rows: 24 }): void {
    this.frame(FrameKind.Snapshot, offset, Uint8Array.from([...encodeSize(size), ...bytes(text)]), flags);
  }
  lose(): void {
    this.isReady = false;
    for (const listener of this.listeners)
      listener({ phase: "reconnecting", since: 0, retryAt: 0, reason: null });
  }
  back(): void {
    this.isReady = true;
    for (const listener of this.listeners) listener({ phase: "open", since: 0 });
  }
}

function make(
  options: {
    isWhole?: boolean;
    withWriter?: boolean;
    term?: Terminal;
    onStatus?: (status: AttachmentStatus) => void;
  } = {},
) {
  const wire = new Wire();
  const term = options.term ?? new Terminal({ cols: 80, rows: 24, allowProposedApi: true });
  const hash = new OutputHash();
  const lost: string[] = [];
  const writer = options.withWriter
    ? new InputWriter({
        notDelivered: (item) => lost.push(item.reason),
        resync: () => attachment.resync(),
        pending: () => undefined,
      })
    : null;
  const ordered = new OrderedTerminal(term);
  const attachment: Attachment = new Attachment({
    socket: wire as unknown as LiveSocket,
    session: ID,
    terminal: ordered,
    writer,
    maySize: true,
    isWhole: options.isWhole,
    onStatus: options.onStatus,
    onOutput: (chunk, position) => hash.output(chunk, position),
    onSnapshot: (position) => hash.snapshot(position),
  });
  return { wire, term, ordered, attachment, writer, hash, lost };
}
const row = (term: Terminal, y: number) =>
  term.buffer.active.getLine(term.buffer.active.baseY + y)?.translateToString(true);
/** Waits until the attachment's terminal, or one of its own, has parsed everything. */
const parsed = (term: Terminal | OrderedTerminal) =>
  new Promise<void>((resolve) =>
    term instanceof OrderedTerminal ? term.run(resolve) : term.write("", resolve),
  );

beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"] }));
afterEach(() => vi.useRealTimers());

describe("an attachment", () => {
  it("asks for a snapshot first and for its position after a loss", async () => {
    const { wire, term, ordered, attachment } = make();
    expect(wire.attach).toMatchObject({ from: null, credit: VIEWER_WINDOW_BYTES, writer: null });
    wire.attached();
    wire.snapshot(100, "hello");
    wire.frame(FrameKind.Output, 100, bytes(" world"));
    await parsed(ordered);
    expect(row(term, 0)).toBe("hello world");
    expect(attachment.status.phase).toBe("live");
    wire.lose();
    expect(attachment.status.phase).toBe("waiting");
    wire.back();
    expect(wire.attach).toMatchObject({ from: { epoch: 0, offset: 106 } });
    wire.attached();
    wire.frame(FrameKind.Output, 106, bytes("!"));
    await parsed(ordered);
    expect(row(term, 0)).toBe("hello world!");
  });

  it("applies a resize between the bytes before it and the bytes after it", async () => {
    const { wire, term } = make();
    wire.attached();
    wire.snapshot(0, "");
    wire.frame(FrameKind.Output, 0, bytes("x".repeat(80)));
    wire.frame(FrameKind.Resize, 80, encodeSize({ cols: 40, rows: 10 }));
    wire.frame(FrameKind.Output, 80, bytes("\r\nafter"));
    const reference = new Terminal({ cols: 80, rows: 24, allowProposedApi: true });
    reference.write("x".repeat(80));
    await parsed(reference);
    reference.resize(40, 10);
    reference.write("\r\nafter");
    await parsed(reference);
    const rows = (terminal: Terminal) => Array.from({ length: terminal.rows }, (_, y) => row(terminal, y));
    await vi.waitFor(() => expect(rows(term)).toEqual(rows(reference)));
    expect(rows(term).join("")).toContain("after");
  });

  it("grants absolute credit from the write callback, in steps", async () => {
    const { wire, ordered } = make();
    wire.attached();
    wire.snapshot(0, "");
    const chunk = new Uint8Array(20 * 1024).fill(120);
    for (let index = 0; index < 4; index++) wire.frame(FrameKind.Output, index * chunk.length, chunk);
    await parsed(ordered);
    const grants = wire.frames
      .filter((frame) => frame.kind === FrameKind.Credit)
      .map((frame) => Number(frame.offset));
    expect(grants).toEqual([40 * 1024 + 4 + VIEWER_WINDOW_BYTES, 80 * 1024 + 4 + VIEWER_WINDOW_BYTES]);
  });

  it("never shows a hole: it asks for the screen", () => {
    const { wire } = make();
    wire.attached();
    wire.snapshot(100, "a");
    wire.frame(FrameKind.Output, 105, bytes("b"));
    expect(wire.sent.filter((message) => message.type === "attach")).toHaveLength(2);
    expect(wire.attach.from).toBeNull();
  });

  it("counts what was skipped, and hashes only contiguous runs", async () => {
    const { wire, attachment, hash, ordered } = make();
    wire.attached();
    wire.snapshot(10, "");
    wire.frame(FrameKind.Output, 10, bytes("abc"));
    wire.snapshot(13, "abc");
    wire.frame(FrameKind.Output, 13, bytes("def"));
    expect(hash).toMatchObject({ from: { epoch: 0, offset: 10 }, bytes: 6, snapshots: 2 });
    // SHA-256 of "abcdef".
    expect(hash.hex()).toBe("bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721");
    wire.snapshot(1_000_016, "far", FLAG_GAP);
    expect(attachment.status.skippedBytes).toBe(1_000_000);
    expect(hash).toMatchObject({ from: { offset: 1_000_016 }, bytes: 0 });
    await parsed(ordered);
  });

  it("skips ahead when the terminal is behind, once its history is there, and never before a screen was shown", async () => {
    vi.useFakeTimers({ toFake: ["Date", "performance"] });
    const { wire, term, ordered, attachment } = make();
    const attaches = () => wire.sent.filter((message) => message.type === "attach").length;
    const heavy = "\x1bc".repeat(2_000);
    wire.attached(null, { head: 4_020 });
    wire.snapshot(10, "");
    await parsed(ordered);
    // History that came late, however long it takes, is what the person opened the page for.
    wire.frame(FrameKind.Output, 10, bytes(heavy));
    vi.advanceTimersByTime(1_000);
    wire.frame(FrameKind.Output, 4_010, bytes("0123456789"));
    vi.advanceTimersByTime(1_000);
    expect(attaches()).toBe(1);
    wire.frame(FrameKind.Output, 4_020, bytes("late"));
    expect(attaches()).toBe(2);
    expect(wire.attach.from).toBeNull();
    wire.attached(null, { head: 9_000 });
    wire.snapshot(9_000, "screen");
    // Not parsed yet: it stays, whatever follows.
    vi.advanceTimersByTime(1_000);
    wire.frame(FrameKind.Output, 9_000, bytes(" and more"));
    expect(attaches()).toBe(2);
    await parsed(ordered);
    expect(row(term, 0)).toBe("screen and more");
    expect(attachment.status.skippedBytes).toBeGreaterThan(9_000 - 4_020);
    expect(attachment.position?.offset).toBe(9_009);
  });

  it("shows all of what was there when it came, if nothing follows, however long that takes", async () => {
    vi.useFakeTimers({ toFake: ["Date", "performance"] });
    const { wire, term, ordered } = make();
    const history = `${"\x1bc".repeat(2_000)}history`;
    wire.attached(null, { head: history.length });
    wire.frame(FrameKind.Output, 0, bytes(history));
    vi.advanceTimersByTime(1_000);
    await parsed(ordered);
    expect(wire.sent.filter((message) => message.type === "attach")).toHaveLength(1);
    expect(row(term, 0)).toBe("history");
  });

  it("gives up what a flood left behind although nothing comes any more, but never in a page that wants all", async () => {
    vi.useFakeTimers({ toFake: ["Date", "performance"] });
    const left = `${"\x1bc".repeat(2_000)}flood`;
    for (const isWhole of [false, true]) {
      const { wire, term, ordered, attachment } = make({ isWhole });
      const attaches = () => wire.sent.filter((message) => message.type === "attach").length;
      wire.attached();
      wire.snapshot(0, "");
      await parsed(ordered);
      wire.frame(FrameKind.Output, 0, bytes(left));
      vi.advanceTimersByTime(200);
      if (isWhole) {
        await parsed(ordered);
        expect(attaches()).toBe(1);
        expect(row(term, 0)).toBe("flood");
        continue;
      }
      await vi.waitFor(() => expect(attaches()).toBe(2));
      expect(wire.attach.from).toBeNull();
      wire.attached(null, { head: left.length + 2 });
      wire.snapshot(left.length + 2, "^C$ ");
      await parsed(ordered);
      expect(row(term, 0)).toBe("^C$ ");
      expect(attaches()).toBe(2);
      expect(attachment.status.skippedBytes).toBeGreaterThan(0);
    }
  });

  it("skips ahead sooner when the machine has taken a key, if there is much to parse", async () => {
    vi.useFakeTimers({ toFake: ["Date", "performance"] });
    const cases = [
      { waiting: 20_000, hasTyped: true, lag: 100, attaches: 2 },
      { waiting: 20_000, hasTyped: true, lag: 20, attaches: 1 },
      { waiting: 20_000, hasTyped: false, lag: 100, attaches: 1 },
      { waiting: 8_000, hasTyped: true, lag: 100, attaches: 1 },
    ];
    for (const { waiting, hasTyped, lag, attaches } of cases) {
      const { wire, writer, ordered } = make({ withWriter: true });
      wire.attached(0);
      wire.snapshot(0, "");
      await parsed(ordered);
      writer?.push(bytes("\x03"));
      wire.frame(FrameKind.Output, 0, bytes("\x1bc".repeat(waiting / 2)));
      vi.advanceTimersByTime(lag);
      if (hasTyped) wire.frame(FrameKind.InputAck, 1, bytes(""));
      expect(wire.sent.filter((message) => message.type === "attach")).toHaveLength(attaches);
      if (hasTyped) expect(writer?.pendingBytes).toBe(0);
    }
  });

  it("gives up nothing while the machine is away: no screen would come in its place", async () => {
    vi.useFakeTimers({ toFake: ["Date", "performance"] });
    const { wire, term, ordered } = make();
    wire.attached();
    wire.snapshot(0, "");
    await parsed(ordered);
    wire.frame(FrameKind.Output, 0, bytes(`${"\x1bc".repeat(2_000)}last words`));
    wire.say({ type: "link", is_up: false });
    vi.advanceTimersByTime(1_000);
    await parsed(ordered);
    expect(wire.sent.filter((message) => message.type === "attach")).toHaveLength(1);
    expect(row(term, 0)).toBe("last words");
  });

  it("starts anew with a new epoch", async () => {
    const { wire, term, ordered, attachment } = make();
    wire.attached();
    wire.snapshot(50, "old");
    wire.frame(FrameKind.Exit, 50, Uint8Array.of(0, 7));
    expect(attachment.status.exit).toEqual({ kind: "code", code: 7 });
    wire.frame(FrameKind.Output, 0, bytes("new"), 0, 1);
    await parsed(ordered);
    await vi.waitFor(() => expect(row(term, 0)).toBe("new"));
    expect(attachment.status.exit).toBeNull();
    expect(attachment.position).toEqual({ epoch: 1, offset: 3 });
  });

  it("tells of one end once, however often the page attaches again", () => {
    const told: unknown[] = [];
    const { wire, attachment } = make({
      onStatus: (status) => {
        if (told.at(-1) !== status.exit) told.push(status.exit);
      },
    });
    wire.attached();
    wire.snapshot(50, "screen");
    wire.frame(FrameKind.Exit, 50, Uint8Array.of(0, 7));
    for (let round = 0; round < 3; round++) {
      wire.lose();
      wire.back();
      wire.attached();
      // With a snapshot or without one: the screen of an ended session stays ended.
      if (round === 1) wire.snapshot(50, "screen");
      wire.frame(FrameKind.Exit, 50, Uint8Array.of(0, 7));
    }
    expect(told).toEqual([null, { kind: "code", code: 7 }]);
    expect(attachment.status.exit).toEqual({ kind: "code", code: 7 });
    // Another run ends on its own, even with the same code.
    wire.frame(FrameKind.Output, 0, bytes("new"), 0, 1);
    wire.frame(FrameKind.Exit, 3, Uint8Array.of(0, 7), 0, 1);
    expect(told).toEqual([null, { kind: "code", code: 7 }, null, { kind: "code", code: 7 }]);
  });

  it("takes the size that came with `attached` only where it holds", async () => {
    const { wire, term, attachment } = make();
    wire.attached();
    wire.snapshot(10, "x");
    wire.lose();
    wire.back();
    wire.attached(null, { head: 12, size: { cols: 100, rows: 30 } });
    expect(attachment.status.size?.cols).toBe(80);
    wire.frame(FrameKind.Output, 10, bytes("yz"));
    await vi.waitFor(() => expect(term.cols).toBe(100));
  });

  it("holds input while the machine is away and attaches anew when it is back", () => {
    const { wire, attachment, writer } = make({ withWriter: true });
    wire.attached(0);
    writer?.push(bytes("a"));
    wire.say({ type: "link", is_up: false });
    expect(attachment.status.phase).toBe("machine_away");
    writer?.push(bytes("b"));
    const inputs = () =>
      wire.frames.filter((frame) => frame.kind === FrameKind.Input).map((frame) => Number(frame.offset));
    expect(inputs()).toEqual([1]);
    wire.say({ type: "link", is_up: true });
    wire.attached(1);
    expect(inputs()).toEqual([1, 2]);
  });

  it("agrees on numbers anew after a refusal", () => {
    const { wire, writer, lost } = make({ withWriter: true });
    wire.attached(0);
    writer?.push(bytes("a"));
    wire.frame(FrameKind.InputAck, 1, bytes("read_only"), FLAG_REFUSED);
    expect(lost).toEqual(["read_only"]);
    expect(wire.sent.filter((message) => message.type === "attach")).toHaveLength(2);
    wire.attached(0);
    writer?.push(bytes("b"));
    // Numbers are never used twice, and a gap says that what was given up is not continued.
    expect(Number(wire.frames.at(-1)?.offset)).toBe(3);
  });

  it("wishes its size after every attach, but only as a writer", () => {
    const { wire, attachment } = make({ withWriter: true });
    attachment.wishSize({ cols: 132, rows: 50 });
    wire.attached(0);
    const wishes = () => wire.frames.filter((frame) => frame.kind === FrameKind.Resize);
    expect(wishes().map((frame) => [...frame.payload])).toContainEqual([132, 0, 50, 0]);
    expect(attachment.takeSize({ cols: 100, rows: 40 })).toBe(true);
    expect(wire.sent.at(-1)).toEqual({
      type: "take_size",
      channel: wire.channel,
      size: { cols: 100, rows: 40 },
    });
    const reader = make();
    reader.attachment.wishSize({ cols: 132, rows: 50 });
    reader.wire.attached();
    expect(reader.wire.frames).toEqual([]);
  });
});
