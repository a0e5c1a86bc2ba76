/** People, machines and sessions that the mock relay knows. */
import { readFileSync } from "node:fs";

import type { MachineFacts, MachineInfo, SessionInfo } from "../src/api/types";

export const MINUTE = 60_000;
export const HOUR = 60 * MINUTE;
const GIB = 1024 ** 3;
const id = (n: number) => `01900000-0000-7000-8000-${n.toString(16).padStart(12, "0")}`;

function facts(change: Partial<MachineFacts>): MachineFacts {
  return {
    hostname: "studio",
    os: "linux",
    os_version: "Debian GNU/Linux 12",
    arch: "x86_64",
    user: "alice",
    agent_version: "0.1.0",
    claude_version: "2.1.329",
    claude_logged_in: true,
    capabilities: ["modes.headless"],
    max_sessions: 10,
    cpus: 16,
    load_1m: 3.42,
    memory_bytes: 64 * GIB,
    memory_available_bytes: 41.3 * GIB,
    roots: [],
    home: "/home/alice",
    ...change,
  };
}

export function demoMachines(): MachineInfo[] {
  const now = Date.now();
  const base = { last_seen_at: now, paired_at: now - 500 * HOUR };
  return [
    { ...base, id: id(0x11), name: "studio", state: "online", state_since: now - 7 * HOUR, facts: facts({}) },
    {
      ...base,
      id: id(0x12),
      name: "laptop",
      state: "asleep",
      state_since: now - 43 * MINUTE,
      last_seen_at: now - 43 * MINUTE,
      facts: facts({
        hostname: "laptop",
        os: "macos",
        os_version: "macOS 16.1",
        arch: "aarch64",
        home: "/Users/alice",
      }),
    },
    {
      ...base,
      id: id(0x13),
      name: "build-server-frankfurt",
      state: "unreachable",
      state_since: now - 12 * MINUTE,
      last_seen_at: now - 12 * MINUTE,
      facts: facts({
        hostname: "fra1.example.net",
        claude_logged_in: false,
        roots: ["/srv/builds"],
        load_1m: 12.8,
      }),
    },
    {
      ...base,
      id: id(0x14),
      name: "pi",
      state: "never_connected",
      state_since: now - 3 * MINUTE,
      last_seen_at: null,
      facts: facts({
        hostname: "raspberrypi",
        arch: "aarch64",
        claude_version: null,
        claude_logged_in: null,
      }),
    },
  ];
}

export function demoSessions(): SessionInfo[] {
  const now = Date.now();
  const make = (n: number, name: string, change: Partial<SessionInfo>): SessionInfo => ({
    id: id(0x100 + n),
    name,
    machine_id: id(0x11),
    mode: "interactive",
    cwd: `/home/alice/code/${name}`,
    state: "running",
    state_since: now - n * 3 * MINUTE,
    state_source: "hook",
    created_at: now - n * 20 * MINUTE,
    started_at: now - n * 20 * MINUTE,
    pid: 4000 + n,
    size: { cols: 120, rows: 40 },
    size_owner: "browser of alice@example.com",
    model: "opus",
    permission_mode: "default",
    viewers: 1,
    epoch: 0,
    output_bytes: 0,
    is_resumable: true,
    resources: { cpu_percent: 34, memory_bytes: 412 * 1024 ** 2, processes: 4, sampled_at: now },
    ...change,
  });
  return [
    make(1, "fix-login", {
      state: "waiting_input",
      state_reason: "wants to run `cargo publish --dry-run`",
      state_since: now - 130_000,
    }),
    make(2, "billing-migration", {
      state_reason: "editing src/invoice.rs",
      size_owner: "attach on tty3",
      viewers: 2,
    }),
    make(3, "nest-shell", {
      mode: "shell",
      cwd: "/home/alice/code/nest",
      model: null,
      size: { cols: 100, rows: 30 },
      state_source: "process",
    }),
    make(4, "triage-bot", { mode: "headless", state_reason: "answering", model: "sonnet" }),
    make(5, "design-review", { state: "paused", state_source: "process" }),
    make(6, "docs-french", { machine_id: id(0x13), state_reason: "translating docs/INSTALL.md" }),
    make(7, "nightly-audit", {
      machine_id: id(0x12),
      state: "hibernated",
      pid: null,
      state_source: "process",
    }),
    make(8, "port-to-axum", {
      state: "failed",
      exit: { kind: "code", code: 7 },
      ended_at: now - 24 * MINUTE,
      pid: null,
      state_reason: "Claude Code ended with code 7 while a tool ran",
    }),
    make(9, "changelog", { state: "completed", mode: "oneshot", exit: { kind: "code", code: 0 }, pid: null }),
    make(10, "spike-nats", {
      state: "terminated",
      exit: { kind: "signal", signal: 15 },
      pid: null,
      is_resumable: true,
    }),
  ];
}

/** What a headless session printed, and the questions that were put to it. */
export function headlessLines(path: string): string {
  return readFileSync(path, "utf8")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { dir: string; msg: { type: string } })
    .filter(({ dir, msg }) => dir === "out" || msg.type === "user")
    .map(({ msg }) => `${JSON.stringify(msg)}\n`)
    .join("");
}
