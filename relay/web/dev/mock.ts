/**
 * A relay made of cardboard, for looking at the pages: REST answers from memory and real frames on the socket.
 * Never shipped. `npm run mock` (PORT, default 7459), then open it directly (it serves dist) or through `vite`.
 */
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

import { type WebSocket, WebSocketServer } from "ws";

import type {
  BrowserMessage,
  MachineInfo,
  PairingStatus,
  ServerMessage,
  SessionInfo,
  SessionSpec,
} from "../src/api/types";
import { isCommitted } from "../src/pairing/sas";
import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import { transcript } from "../src/pairing/sas";
import { decodeFrame, encodeFrame, encodeSize, FrameKind, sizeOf, uuidBytes } from "../src/wire/frame";
import { MAX_OUTPUT_BYTES } from "../src/wire/limits";
import { MockGuard } from "./mock-guard";
import { demoMachines, demoSessions, headlessLines, HOUR, MINUTE } from "./demo";

const here = fileURLToPath(new URL(".", import.meta.url));
const dist = join(here, "../dist");
const samples = join(here, "../../../tests/fixtures/samples");
const port = Number(process.env.PORT ?? 7459);
const isEmpty = process.env.MOCK_EMPTY === "1";

const machines = new Map<string, MachineInfo>(
  (isEmpty ? [] : demoMachines()).map((machine) => [machine.id, machine]),
);
const sessions = new Map<string, SessionInfo>(
  (isEmpty ? [] : demoSessions()).map((session) => [session.id, session]),
);
let isLoggedIn = process.env.MOCK_LOGGED_OUT !== "1";
const user = {
  id: "01900000-0000-7000-8000-000000000001",
  email: "alice@example.com",
  name: "Alice",
  role: "admin",
};

/** One terminal's bytes and who watches them. */
class Stream {
  bytes = Buffer.alloc(0);
  viewers = new Map<string, Viewer>();
  acked = new Map<string, number>();
  constructor(readonly session: SessionInfo) {}
  push(chunk: Buffer): void {
    this.bytes = Buffer.concat([this.bytes, chunk]);
    this.session.output_bytes = this.bytes.length;
    for (const viewer of this.viewers.values()) viewer.pump();
  }
}
class Viewer {
  next: number;
  sent = 0;
  constructor(
    readonly stream: Stream,
    readonly socket: WebSocket,
    readonly channel: number,
    from: number | null,
    public credit: number,
  ) {
    this.next = from ?? 0;
    if (from === null) {
      this.next = stream.bytes.length;
      this.frame(
        FrameKind.Snapshot,
        this.next,
        Buffer.concat([encodeSize(stream.session.size), stream.bytes]),
      );
      this.sent += stream.bytes.length + 4;
    }
    this.pump();
  }
  frame(kind: FrameKind, offset: number, payload?: Uint8Array, flags = 0): void {
    const { id, epoch } = this.stream.session;
    const bytes = {
      kind,
      flags,
      channel: this.channel,
      epoch,
      session: uuidBytes(id),
      offset: BigInt(offset),
      payload,
    };
    this.socket.send(encodeFrame(bytes));
  }
  pump(): void {
    while (this.next < this.stream.bytes.length && this.sent < this.credit) {
      const size = Math.min(MAX_OUTPUT_BYTES, this.stream.bytes.length - this.next, this.credit - this.sent);
      this.frame(FrameKind.Output, this.next, this.stream.bytes.subarray(this.next, this.next + size));
      this.next += size;
      this.sent += size;
    }
  }
}
const streams = new Map<string, Stream>();
function streamOf(session: SessionInfo): Stream {
  let stream = streams.get(session.id);
  if (!stream) {
    stream = new Stream(session);
    streams.set(session.id, stream);
    feed(stream);
  }
  return stream;
}

function feed(stream: Stream): void {
  const { session } = stream;
  if (session.mode === "headless") {
    stream.push(Buffer.from(headlessLines(join(samples, "stream_json_control.jsonl"))));
  } else if (session.mode === "shell") {
    stream.push(
      Buffer.from(
        "alice@studio:~/code/nest$ cargo nextest run -p agent\r\n\x1b[1;32m   Compiling\x1b[0m claudenest-agent v0.1.0\r\n" +
          Array.from(
            { length: 24 },
            (_, i) => `\x1b[32m        PASS\x1b[0m [   0.0${i}s] agent session::tests::case_${i}\r\n`,
          ).join("") +
          "\x1b[32;1m     Summary\x1b[0m [   1.204s] 24 tests run: \x1b[1m24\x1b[0m passed, 0 skipped\r\nhttps://example.com/report  ┌─┬─┐ 日本 🎉\r\nalice@studio:~/code/nest$ ",
      ),
    );
  } else {
    const raw = readFileSync(join(samples, "pty", "claude_session.raw"));
    const timing = readFileSync(join(samples, "pty", "claude_session.timing"), "utf8")
      .trim()
      .split("\n");
    // Most of it at once, the end slowly: something to see and something that moves.
    const isSlow = session.state === "running" || session.state === "waiting_input";
    const cut =
      session.state === "waiting_input"
        ? Number(process.env.MOCK_CUT ?? raw.length * 0.55)
        : isSlow
          ? raw.length * 0.8
          : raw.length;
    let at = 0;
    const steps: Buffer[] = [];
    for (const line of timing) {
      const size = Number(line.split(" ")[1]);
      steps.push(raw.subarray(at, at + size));
      at += size;
    }
    let given = 0;
    while (steps.length > 0 && given < cut) {
      const step = steps.shift() as Buffer;
      given += step.length;
      stream.push(step);
    }
    if (session.state === "running") {
      const timer = setInterval(() => {
        const step = steps.shift();
        if (step) stream.push(step);
        else clearInterval(timer);
      }, 400);
      timer.unref();
    }
  }
}

const sockets = new Set<WebSocket>();
function tell(message: ServerMessage): void {
  for (const socket of sockets) socket.send(JSON.stringify(message));
}
function change(session: SessionInfo, next: Partial<SessionInfo>): SessionInfo {
  Object.assign(session, next);
  tell({ type: "session", session });
  return session;
}

// --- pairing: one code, A7K-M2X, whose machine always says yes
const agentNonce = "11".repeat(32);
const publicKey = "ab".repeat(32);
const hex = (text: string) => Uint8Array.from(Buffer.from(text, "hex"));
const commitment = bytesToHex(
  sha256(transcript("claudenest pairing commitment v1", [hex(publicKey), hex(agentNonce)])),
);
if (!isCommitted(publicKey, agentNonce, commitment)) throw new Error("the mock's own commitment is wrong");
let pairing: (PairingStatus & { polls: number }) | null = null;

type Handler = (match: string[], body: Record<string, unknown>, url: URL) => unknown;
class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}
function found<T>(value: T | undefined): T {
  if (value === undefined) throw new Refusal(404, "not_found", "There is no such thing here.");
  return value;
}
const guard = new MockGuard(isEmpty, machines, tell, (...why) => new Refusal(...why));
const routes: [string, RegExp, Handler][] = [
  ...guard.routes(),
  [
    "POST",
    /^\/auth\/login-link$/,
    (_m, body) => {
      if (body.token === "bad") throw new Refusal(401, "unauthenticated", "This link was used.");
      isLoggedIn = true;
      return { user };
    },
  ],
  ["POST", /^\/auth\/logout$/, () => ((isLoggedIn = false), null)],
  [
    "GET",
    /^\/me$/,
    () => {
      if (!isLoggedIn) throw new Refusal(401, "unauthenticated", "Log in.");
      return { user, csrf_token: "csrf", session_expires_at: Date.now() + 24 * HOUR };
    },
  ],
  [
    "GET",
    /^\/auth\/sessions$/,
    () => [
      {
        id: "1",
        created_at: Date.now() - 50 * HOUR,
        last_used_at: Date.now() - 1000,
        address: "127.0.0.1",
        user_agent:
          "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36",
        is_current: true,
      },
      {
        id: "2",
        created_at: Date.now() - 90 * HOUR,
        last_used_at: Date.now() - 5 * HOUR,
        address: "192.0.2.7",
        user_agent: "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19.0 Mobile Safari/604.1",
        is_current: false,
      },
    ],
  ],
  ["DELETE", /^\/auth\/sessions\/.+$/, () => null],
  [
    "POST",
    /^\/ws-tickets$/,
    () => {
      if (!isLoggedIn) throw new Refusal(401, "unauthenticated", "Log in.");
      return { ticket: "t", expires_at: Date.now() + 5 * MINUTE };
    },
  ],
  ["GET", /^\/health$/, () => ({ status: "ok", version: "0.1.0", database: "ok" })],
  [
    "PATCH",
    /^\/machines\/([^/]+)$/,
    ([id], body) => {
      const machine = found(machines.get(id ?? ""));
      machine.name = String(body.name);
      tell({ type: "machine", machine });
      return machine;
    },
  ],
  [
    "DELETE",
    /^\/machines\/([^/]+)$/,
    ([id]) => {
      machines.delete(id ?? "");
      tell({ type: "machine_removed", machine: id ?? "" });
      return null;
    },
  ],
  [
    "GET",
    /^\/machines\/[^/]+\/directories$/,
    (_m, _b, url) => {
      const path = (url.searchParams.get("path") || "/home/alice")
        .replace(/^~/, "/home/alice")
        .replace(/(.)\/$/, "$1");
      if (path.includes("nope"))
        throw new Refusal(422, "bad_directory", `There is no directory ${path} on studio. Choose another.`);
      const names = [
        "api",
        "billing",
        "claudenest",
        "design-system",
        "docs",
        "infra",
        "mobile",
        "website",
        ".config",
      ];
      const parent = path === "/" ? null : path.slice(0, path.lastIndexOf("/")) || "/";
      return {
        path,
        parent,
        entries: names.map((name, i) => ({ name, is_git: i % 3 !== 1 })),
        is_cut: false,
      };
    },
  ],
  [
    "POST",
    /^\/sessions$/,
    (_m, body) => {
      const spec = body.spec as SessionSpec;
      if (spec.name === "taken")
        throw new Refusal(409, "name_taken", "A session called taken exists on studio. Choose another name.");
      if (spec.cwd.includes("nope"))
        throw new Refusal(
          422,
          "bad_directory",
          `There is no directory ${spec.cwd} on studio. Choose another.`,
        );
      const now = Date.now();
      const session: SessionInfo = {
        id: `01900000-0000-7000-8000-${now.toString(16).padStart(12, "0")}`,
        name: spec.name || spec.cwd.split("/").pop() || "session",
        machine_id: String(body.machine_id),
        mode: spec.mode,
        cwd: spec.cwd,
        state: "running",
        state_since: now,
        created_at: now,
        started_at: now,
        size: spec.size ?? { cols: 120, rows: 40 },
        model: spec.model,
        epoch: 0,
        output_bytes: 0,
        viewers: 0,
      };
      sessions.set(session.id, session);
      return change(session, {});
    },
  ],
  [
    "PATCH",
    /^\/sessions\/([^/]+)$/,
    ([id], body) => change(found(sessions.get(id ?? "")), { name: String(body.name) }),
  ],
  [
    "DELETE",
    /^\/sessions\/([^/]+)$/,
    ([id]) => {
      sessions.delete(id ?? "");
      tell({ type: "session_removed", session: id ?? "" });
      return null;
    },
  ],
  [
    "POST",
    /^\/sessions\/([^/]+)\/send$/,
    ([id], body) => {
      const line = { type: "user", message: { role: "user", content: body.text } };
      streamOf(found(sessions.get(id ?? ""))).push(Buffer.from(`${JSON.stringify(line)}\n`));
      return null;
    },
  ],
  [
    "POST",
    /^\/sessions\/([^/]+)\/(stop|pause|resume|restart|hibernate)$/,
    ([id, action]) => {
      const state = {
        stop: "terminated",
        pause: "paused",
        resume: "running",
        restart: "running",
        hibernate: "hibernated",
      }[action ?? ""];
      const exit = action === "stop" ? ({ kind: "signal", signal: 15 } as const) : null;
      return change(found(sessions.get(id ?? "")), {
        state: state as SessionInfo["state"],
        state_since: Date.now(),
        exit,
        state_reason: null,
      });
    },
  ],
  [
    "POST",
    /^\/pairing\/lookup$/,
    (_m, body) => {
      if (body.code !== "A7K-M2X")
        throw new Refusal(404, "pairing_not_found", "No machine waits with this code.");
      const facts = { ...demoMachines()[0]?.facts, hostname: "atelier", claude_version: "2.1.329" };
      return {
        pairing_id: "01900000-0000-7000-8000-0000000000aa",
        state: "pending",
        public_key: publicKey,
        commitment,
        facts,
        address: "192.0.2.44",
        started_at: Date.now() - 40_000,
        expires_at: Date.now() + 9 * MINUTE,
      };
    },
  ],
  [
    "POST",
    /^\/pairing\/claim$/,
    (_m, body) => {
      pairing = {
        state: "claimed",
        account: user.email,
        public_key: publicKey,
        commitment,
        browser_nonce: String(body.browser_nonce),
        polls: 0,
      };
      return { account: user.email, expires_at: Date.now() + 9 * MINUTE };
    },
  ],
  [
    "GET",
    /^\/pairing\/status\/.+$/,
    () => {
      const status = found(pairing ?? undefined);
      status.polls++;
      if (status.polls > 1) status.agent_nonce = agentNonce;
      if (status.polls > Number(process.env.MOCK_POLLS ?? 6)) {
        status.state = "consumed";
        status.machine_id = [...machines.keys()][0] ?? null;
      }
      return status;
    },
  ],
  ["POST", /^\/pairing\/cancel\/.+$/, () => null],
  [
    "GET",
    /^\/enrolment-tokens$/,
    () => [
      {
        id: "e1",
        label: "build-server",
        created_at: Date.now() - 10 * MINUTE,
        expires_at: Date.now() + 50 * MINUTE,
        used_at: null,
      },
    ],
  ],
  [
    "POST",
    /^\/enrolment-tokens$/,
    () => ({ id: "e2", token: "et_3v9Xk2mQ8rT5wY7zB1cD4fG6hJ0kL", expires_at: Date.now() + HOUR }),
  ],
  ["DELETE", /^\/enrolment-tokens\/.+$/, () => null],
];

const TYPES: Record<string, string> = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".woff2": "font/woff2",
};
/** The policy that the real relay sends; here so that a page that breaks it is seen early. */
const CSP =
  "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

function serveFile(path: string, response: ServerResponse): void {
  const file = normalize(join(dist, path));
  let target = file.startsWith(dist) && extname(file) ? file : join(dist, "index.html");
  let content: Buffer;
  try {
    content = readFileSync(target);
  } catch {
    target = join(dist, "index.html");
    content = readFileSync(target);
  }
  response.writeHead(200, {
    "Content-Type": TYPES[extname(target)] ?? "application/octet-stream",
    "Content-Security-Policy": CSP,
  });
  response.end(content);
}

async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? "/", "http://mock");
  if (!url.pathname.startsWith("/api/")) {
    serveFile(url.pathname, response);
    return;
  }
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const path = url.pathname.slice(4);
  try {
    const body =
      chunks.length > 0 ? (JSON.parse(Buffer.concat(chunks).toString()) as Record<string, unknown>) : {};
    for (const [method, pattern, handler] of routes) {
      const match = pattern.exec(path);
      if (method !== request.method || !match) continue;
      const answer = handler(match.slice(1), body, url);
      response.writeHead(answer === null ? 204 : 200, { "Content-Type": "application/json" });
      response.end(answer === null ? undefined : JSON.stringify(answer));
      return;
    }
    throw new Refusal(404, "not_found", "There is nothing here.");
  } catch (error) {
    const refusal = error instanceof Refusal ? error : new Refusal(500, "internal", String(error));
    response.writeHead(refusal.status, { "Content-Type": "application/json" });
    response.end(JSON.stringify({ error: { code: refusal.code, message: refusal.message } }));
  }
}

const server = createServer((request, response) => void handle(request, response));
new WebSocketServer({ server, path: "/ws", handleProtocols: () => "claudenest.browser.v1" }).on(
  "connection",
  (socket) => {
    const viewers = new Map<number, Viewer & { writer?: string | null }>();
    const send = (message: ServerMessage) => socket.send(JSON.stringify(message));
    socket.on("close", () => {
      sockets.delete(socket);
      for (const [channel, viewer] of viewers) viewer.stream.viewers.delete(`${channel}-${viewer.channel}`);
    });
    socket.on("message", (data: Buffer, isBinary) => {
      if (isBinary) {
        const frame = decodeFrame(data);
        const viewer = viewers.get(frame.channel);
        if (!viewer) return;
        if (frame.kind === FrameKind.Credit) {
          viewer.credit = Math.max(viewer.credit, Number(frame.offset));
          viewer.pump();
        } else if (frame.kind === FrameKind.Input) {
          viewer.stream.acked.set(viewer.writer ?? "", Number(frame.offset));
          viewer.frame(FrameKind.InputAck, Number(frame.offset));
          viewer.stream.push(Buffer.from(Buffer.from(frame.payload).toString().replaceAll("\r", "\r\n")));
        } else if (frame.kind === FrameKind.Resize && process.env.MOCK_RESIZE === "1") {
          viewer.stream.session.size = sizeOf(frame);
          viewer.frame(FrameKind.Resize, viewer.next, encodeSize(sizeOf(frame)));
        }
        return;
      }
      const message = JSON.parse(data.toString()) as BrowserMessage;
      switch (message.type) {
        case "auth":
          sockets.add(socket);
          send({
            type: "ready",
            relay_version: "0.1.0",
            time: Date.now(),
            machines: [...machines.values()],
            sessions: [...sessions.values()],
            approvals: [...guard.approvals.values()],
            locks: [...guard.locks.values()],
          });
          break;
        case "ping":
          send({ type: "pong", nonce: message.nonce });
          break;
        case "attach": {
          const { channel } = message;
          const session = sessions.get(message.session);
          const machine = machines.get(session?.machine_id ?? "");
          if (!session || machine?.state !== "online") {
            send({
              type: "detached",
              channel,
              error: {
                code: "machine_offline",
                message: `${machine?.name ?? "The machine"} has no link to the relay; its sessions keep running.`,
              },
            });
            return;
          }
          const stream = streamOf(session);
          const acked = message.writer ? (stream.acked.get(message.writer) ?? 0) : null;
          send({
            type: "attached",
            channel,
            epoch: session.epoch,
            head: stream.bytes.length,
            size: session.size,
            acked,
          });
          const viewer = new Viewer(stream, socket, channel, message.from?.offset ?? null, message.credit);
          viewers.set(channel, Object.assign(viewer, { writer: message.writer }));
          stream.viewers.set(`${channel}-${channel}`, viewer);
          break;
        }
        case "detach":
          viewers.get(message.channel)?.stream.viewers.delete(`${message.channel}-${message.channel}`);
          viewers.delete(message.channel);
          send({ type: "detached", channel: message.channel });
          break;
        case "take_size": {
          const viewer = viewers.get(message.channel);
          if (!viewer) return;
          viewer.stream.session.size = message.size;
          viewer.frame(FrameKind.Resize, viewer.next, encodeSize(message.size));
          change(viewer.stream.session, { size: message.size, size_owner: `browser of ${user.email}` });
        }
      }
    });
  },
);
server.listen(port, "127.0.0.1", () => console.log(`mock relay on http://127.0.0.1:${port}`));
