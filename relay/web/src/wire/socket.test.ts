import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { encodeFrame, FrameKind } from "./frame";
import { LiveSocket, NotLoggedIn, type SocketLike } from "./socket";

class FakeSocket implements SocketLike {
  binaryType: BinaryType = "blob";
  readyState = 1;
  onopen: SocketLike["onopen"] = null;
  onclose: SocketLike["onclose"] = null;
  onerror: SocketLike["onerror"] = null;
  onmessage: SocketLike["onmessage"] = null;
  sent: unknown[] = [];
  isClosed = false;
  send(data: string | Uint8Array): void {
    this.sent.push(typeof data === "string" ? JSON.parse(data) : data);
  }
  close(): void {
    this.isClosed = true;
  }
  say(message: unknown): void {
    const data = message instanceof Uint8Array ? message.slice().buffer : JSON.stringify(message);
    this.onmessage?.({ data } as MessageEvent);
  }
  ready(): void {
    this.onopen?.({} as Event);
    this.say({ type: "ready", relay_version: "1", time: 0, machines: [], sessions: [] });
  }
  end(reason = ""): void {
    this.onclose?.({ reason } as CloseEvent);
  }
}

function start(random = 1) {
  const sockets: FakeSocket[] = [];
  const fetchTicket = vi.fn(() => Promise.resolve("ticket"));
  const live = new LiveSocket({
    url: "ws://x/ws",
    fetchTicket,
    open: () => {
      const socket = new FakeSocket();
      sockets.push(socket);
      return socket;
    },
    random: () => random,
  });
  live.start();
  return { live, sockets, fetchTicket };
}
const settle = () => vi.advanceTimersByTimeAsync(0);

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

describe("the page's socket", () => {
  it("authenticates with a ticket and is open only after `ready`", async () => {
    const { live, sockets } = start();
    await settle();
    sockets[0]?.onopen?.({} as Event);
    expect(sockets[0]?.sent).toEqual([{ type: "auth", ticket: "ticket" }]);
    expect(live.isReady).toBe(false);
    expect(live.send({ type: "detach", channel: 1 })).toBe(false);
    sockets[0]?.ready();
    expect(live.state.phase).toBe("open");
    expect(live.send({ type: "detach", channel: 1 })).toBe(true);
    live.stop();
  });

  it("comes back with growing pauses and keeps since-when", async () => {
    const { live, sockets } = start();
    await settle();
    sockets[0]?.ready();
    sockets[0]?.end();
    const since = live.state.since;
    expect(live.state).toMatchObject({ phase: "reconnecting", retryAt: since + 500 });
    await vi.advanceTimersByTimeAsync(500);
    sockets[1]?.end();
    expect(live.state).toMatchObject({ since, retryAt: since + 500 + 1000 });
    await vi.advanceTimersByTimeAsync(1000);
    sockets[2]?.end();
    for (let i = 3; i < 12; i++) {
      await vi.advanceTimersByTimeAsync(15_000);
      sockets[i]?.end();
    }
    expect(live.state).toMatchObject({ since });
    expect((live.state as { retryAt: number }).retryAt - Date.now()).toBe(15_000);
    await vi.advanceTimersByTimeAsync(15_000);
    sockets.at(-1)?.ready();
    expect(live.state.phase).toBe("open");
    live.stop();
  });

  it("stops trying when nobody is logged in", async () => {
    const { live, fetchTicket, sockets } = start();
    fetchTicket.mockRejectedValueOnce(new NotLoggedIn("gone"));
    live.stop();
    live.start();
    await settle();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(live.state).toMatchObject({ phase: "logged_out", reason: "gone" });
    expect(sockets).toHaveLength(0);
    live.stop();
  });

  it("retries when the ticket cannot be fetched or nothing answers", async () => {
    const { live, fetchTicket, sockets } = start();
    live.stop();
    fetchTicket.mockRejectedValueOnce(new Error("502"));
    live.start();
    await settle();
    expect(live.state).toMatchObject({ phase: "reconnecting", reason: "502" });
    await vi.advanceTimersByTimeAsync(500);
    expect(sockets).toHaveLength(1);
    // No `ready`: the attempt is given up after its time.
    await vi.advanceTimersByTimeAsync(15_000);
    expect(sockets[0]?.isClosed).toBe(true);
    expect(live.state).toMatchObject({ reason: "timeout" });
    live.stop();
  });

  it("asks a silent socket and ends it when no answer comes", async () => {
    const { live, sockets } = start();
    await settle();
    sockets[0]?.ready();
    await vi.advanceTimersByTimeAsync(18_000);
    expect(sockets[0]?.sent.at(-1)).toEqual({ type: "ping", nonce: 1 });
    sockets[0]?.say({ type: "pong", nonce: 1 });
    await vi.advanceTimersByTimeAsync(10_000);
    expect(live.isReady).toBe(true);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(sockets[0]?.sent.at(-1)).toEqual({ type: "ping", nonce: 2 });
    await vi.advanceTimersByTimeAsync(12_000);
    expect(sockets[0]?.isClosed).toBe(true);
    expect(sockets.length).toBe(2);
    live.stop();
  });

  it("notices sleep by its clock and asks at once", async () => {
    const { live, sockets } = start();
    await settle();
    sockets[0]?.ready();
    vi.setSystemTime(Date.now() + 3_600_000);
    await vi.advanceTimersByTimeAsync(2_000);
    expect(sockets[0]?.sent.at(-1)).toEqual({ type: "ping", nonce: 1 });
    await vi.advanceTimersByTimeAsync(4_000);
    expect(live.state).toMatchObject({ phase: "reconnecting", reason: "no answer" });
    live.wake();
    await settle();
    expect(sockets).toHaveLength(2);
    live.stop();
  });

  it("follows an orderly end", async () => {
    const { live, sockets } = start();
    await settle();
    sockets[0]?.ready();
    sockets[0]?.say({
      type: "closing",
      error: { code: "unavailable", message: "restart" },
      retry_after_ms: 2000,
    });
    expect(live.state).toMatchObject({ phase: "reconnecting", retryAt: Date.now() + 2000 });
    await vi.advanceTimersByTimeAsync(2_000);
    sockets[1]?.ready();
    sockets[1]?.say({ type: "closing", error: { code: "revoked", message: "bye" } });
    expect(live.state).toMatchObject({ phase: "logged_out", reason: "bye" });
    live.stop();
  });

  it("routes frames by channel, and drops those of a closed one", async () => {
    const { live, sockets } = start();
    await settle();
    sockets[0]?.ready();
    const frame = vi.fn();
    const message = vi.fn();
    const channel = live.openChannel({ frame, message });
    const bytes = encodeFrame({
      kind: FrameKind.Output,
      flags: 0,
      channel,
      epoch: 0,
      session: new Uint8Array(16),
      offset: 0n,
      payload: Uint8Array.of(1),
    });
    sockets[0]?.say(bytes);
    sockets[0]?.say({ type: "link", channel, is_up: false });
    expect(frame).toHaveBeenCalledTimes(1);
    expect(message).toHaveBeenCalledWith({ type: "link", channel, is_up: false });
    live.closeChannel(channel);
    sockets[0]?.say(bytes);
    expect(frame).toHaveBeenCalledTimes(1);
    expect(live.openChannel({ frame, message })).not.toBe(channel);
    // Bytes that are no frame end the socket: nothing after them can be trusted.
    sockets[0]?.say(new Uint8Array(3));
    expect(live.state).toMatchObject({ phase: "reconnecting", reason: "malformed frame" });
    live.stop();
  });
});
