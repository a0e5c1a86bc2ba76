/** Words of the REST interface and the browser socket, written after `shared/src`. */

export interface TermSize {
  cols: number;
  rows: number;
}
export type SessionMode = "interactive" | "headless" | "oneshot" | "shell";
export type PermissionMode = "default" | "acceptEdits" | "plan" | "bypassPermissions";
export type CrashPolicy = "stop" | "resume";
export type SessionState =
  | "created"
  | "starting"
  | "running"
  | "waiting_input"
  | "paused"
  | "hibernated"
  | "completed"
  | "failed"
  | "terminated";
export type StateSource = "process" | "hook" | "inferred";
export type Exit = { kind: "code"; code: number } | { kind: "signal"; signal: number } | { kind: "lost" };

export interface ResourceUse {
  cpu_percent: number;
  memory_bytes: number;
  processes: number;
  sampled_at: number;
}

export interface SessionInfo {
  id: string;
  name: string;
  machine_id?: string | null;
  mode: SessionMode;
  cwd: string;
  state: SessionState;
  state_since: number;
  state_reason?: string | null;
  state_source?: StateSource;
  created_at: number;
  started_at?: number | null;
  ended_at?: number | null;
  pid?: number | null;
  exit?: Exit | null;
  size: TermSize;
  size_owner?: string | null;
  model?: string | null;
  permission_mode?: PermissionMode | null;
  title?: string | null;
  claude_session_id?: string | null;
  worktree?: string | null;
  viewers?: number;
  epoch: number;
  output_bytes: number;
  attempts?: number;
  is_resumable?: boolean;
  resources?: ResourceUse | null;
}

export interface SessionSpec {
  name?: string | null;
  mode: SessionMode;
  cwd: string;
  prompt?: string | null;
  model?: string | null;
  permission_mode?: PermissionMode | null;
  args?: string[];
  env?: Record<string, string>;
  worktree?: string | null;
  size?: TermSize | null;
  on_crash?: CrashPolicy;
}

export type MachineState = "online" | "asleep" | "unreachable" | "stopped" | "never_connected" | "revoked";

export interface MachineFacts {
  hostname: string;
  os: string;
  os_version: string;
  arch: string;
  user: string;
  agent_version: string;
  claude_version?: string | null;
  claude_logged_in?: boolean | null;
  capabilities: string[];
  max_sessions: number;
  cpus: number;
  load_1m: number;
  memory_bytes: number;
  memory_available_bytes: number;
  roots: string[];
  home: string;
}

export interface MachineInfo {
  id: string;
  name: string;
  state: MachineState;
  state_since: number;
  last_seen_at?: number | null;
  paired_at: number;
  facts: MachineFacts;
}

export interface WireError {
  code: string;
  message: string;
}

export interface Directory {
  path: string;
  parent?: string | null;
  entries: { name: string; is_git: boolean }[];
  is_cut: boolean;
}

export interface User {
  id: string;
  email: string;
  name: string;
  role: string;
}

export interface Me {
  user: User;
  csrf_token: string;
  session_expires_at: number;
}

export interface LoginSession {
  id: string;
  created_at: number;
  last_used_at: number;
  address: string | null;
  user_agent: string | null;
  is_current: boolean;
}

export type PairingState = "pending" | "claimed" | "confirmed" | "consumed" | "denied" | "expired";

export interface PairingLookup {
  pairing_id: string;
  state: PairingState;
  public_key: string;
  commitment: string;
  facts: MachineFacts;
  address: string;
  started_at: number;
  expires_at: number;
}

export interface PairingClaim {
  account: string;
  expires_at: number;
}

export interface PairingStatus {
  state: PairingState;
  account: string;
  public_key: string;
  commitment: string;
  agent_nonce?: string | null;
  browser_nonce: string;
  machine_id?: string | null;
}

export interface EnrolmentToken {
  id: string;
  label?: string | null;
  created_at?: number;
  expires_at: number;
  used_at?: number | null;
}

export interface NewEnrolmentToken {
  id: string;
  token: string;
  expires_at: number;
}

export interface Health {
  status: string;
  version: string;
  database: string;
}

export interface StreamPosition {
  epoch: number;
  offset: number;
}

export type BrowserMessage =
  | { type: "auth"; ticket: string }
  | {
      type: "attach";
      channel: number;
      session: string;
      from: StreamPosition | null;
      writer: string | null;
      may_size: boolean;
      lag_limit_bytes: number | null;
      credit: number;
    }
  | { type: "detach"; channel: number }
  | { type: "take_size"; channel: number; size: TermSize }
  | { type: "ping"; nonce: number };

export type ServerMessage =
  | { type: "ready"; relay_version: string; time: number; machines: MachineInfo[]; sessions: SessionInfo[] }
  | { type: "machine"; machine: MachineInfo }
  | { type: "machine_removed"; machine: string }
  | { type: "session"; session: SessionInfo }
  | { type: "session_removed"; session: string }
  | { type: "attached"; channel: number; epoch: number; head: number; size: TermSize; acked?: number | null }
  | { type: "detached"; channel: number; error?: WireError | null }
  | { type: "pong"; nonce: number }
  | { type: "link"; channel: number; is_up: boolean }
  | { type: "closing"; error: WireError; retry_after_ms?: number | null };
