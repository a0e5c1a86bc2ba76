/** Talks to `/api`: JSON, the login cookie, the CSRF header, and errors with a stable code and a sentence. */
import type {
  AcquireLock,
  Answer,
  Approval,
  ApprovalList,
  ApprovalName,
  DecidedAll,
  Directory,
  EnrolmentToken,
  HistoryFound,
  HistoryPart,
  Health,
  Lock,
  LoginSession,
  MachineInfo,
  Me,
  NewEnrolmentToken,
  PairingClaim,
  PairingLookup,
  PairingStatus,
  SessionHistory,
  SessionInfo,
  SessionSpec,
  User,
} from "./types";

/** A refused or failed request. `code` is the wire's error code, or `network` when no answer came. */
export class ApiError extends Error {
  override name = "ApiError";
  constructor(
    readonly code: string,
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

/** Longest wait for an answer: the relay itself gives a machine 15 seconds. */
const TIMEOUT_MS = 30_000;

let csrfToken: string | null = null;
let onUnauthenticated: (() => void) | null = null;

export function setCsrfToken(token: string | null): void {
  csrfToken = token;
}

/** Called when a request shows that the login has ended. */
export function setUnauthenticatedHandler(handler: (() => void) | null): void {
  onUnauthenticated = handler;
}

interface RequestOptions {
  body?: unknown;
  query?: Record<string, string | undefined>;
  /** A 401 of this request does not end the login. */
  isLogin?: boolean;
  signal?: AbortSignal;
}

async function request<T>(method: string, path: string, options: RequestOptions = {}): Promise<T> {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(options.query ?? {})) {
    if (value !== undefined) query.set(key, value);
  }
  const text = query.toString();
  const headers: Record<string, string> = { Accept: "application/json" };
  if (options.body !== undefined) headers["Content-Type"] = "application/json";
  if (method !== "GET" && csrfToken) headers["X-CSRF-Token"] = csrfToken;
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  let response: Response;
  try {
    response = await fetch(`/api${path}${text ? `?${text}` : ""}`, {
      method,
      headers,
      credentials: "same-origin",
      body: options.body === undefined ? undefined : JSON.stringify(options.body),
      signal: options.signal ? AbortSignal.any([options.signal, timeout]) : timeout,
    });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError("network", "", 0);
  }
  if (response.status === 204) return undefined as T;
  let body: unknown;
  try {
    body = await response.json();
  } catch {
    body = null;
  }
  if (response.ok && body !== null) return body as T;
  const failure = (body as { error?: { code?: string; message?: string } } | null)?.error;
  // A proxy's page in place of an answer means that the relay itself is away.
  const code = failure?.code ?? (response.status === 401 ? "unauthenticated" : "network");
  if (response.status === 401 && !options.isLogin) onUnauthenticated?.();
  throw new ApiError(code, failure?.message ?? "", response.status);
}

const id = encodeURIComponent;

export const api = {
  loginByLink: (token: string) =>
    request<{ user: User }>("POST", "/auth/login-link", { body: { token }, isLogin: true }),
  logout: () => request<void>("POST", "/auth/logout"),
  me: () => request<Me>("GET", "/me", { isLogin: true }),
  logins: () => request<LoginSession[]>("GET", "/auth/sessions"),
  revokeLogin: (login: string) => request<void>("DELETE", `/auth/sessions/${id(login)}`),
  wsTicket: () => request<{ ticket: string; expires_at: number }>("POST", "/ws-tickets", { isLogin: true }),
  health: () => request<Health>("GET", "/health"),

  renameMachine: (machine: string, name: string) =>
    request<MachineInfo>("PATCH", `/machines/${id(machine)}`, { body: { name } }),
  removeMachine: (machine: string) => request<void>("DELETE", `/machines/${id(machine)}`),
  directories: (machine: string, path: string, signal?: AbortSignal) =>
    request<Directory>("GET", `/machines/${id(machine)}/directories`, { query: { path }, signal }),

  createSession: (machine: string, spec: SessionSpec) =>
    request<SessionInfo>("POST", "/sessions", { body: { machine_id: machine, spec } }),
  renameSession: (session: string, name: string) =>
    request<SessionInfo>("PATCH", `/sessions/${id(session)}`, { body: { name } }),
  forgetSession: (session: string) => request<void>("DELETE", `/sessions/${id(session)}`),
  stopSession: (session: string, graceMs?: number) =>
    request<SessionInfo>("POST", `/sessions/${id(session)}/stop`, {
      body: graceMs === undefined ? {} : { grace_ms: graceMs },
    }),
  controlSession: (session: string, action: "pause" | "resume" | "restart" | "hibernate") =>
    request<SessionInfo>("POST", `/sessions/${id(session)}/${action}`),
  send: (session: string, text: string, enter: boolean) =>
    request<void>("POST", `/sessions/${id(session)}/send`, { body: { text, enter } }),

  history: (session: string) => request<SessionHistory>("GET", `/sessions/${id(session)}/history`),
  historyChunk: (session: string, from: { epoch: number; offset: number; screen: boolean; source: string }) =>
    request<HistoryPart>("GET", `/sessions/${id(session)}/history/chunk`, {
      query: {
        epoch: String(from.epoch),
        offset: String(from.offset),
        screen: String(from.screen),
        source: from.source,
      },
    }),
  searchHistory: (text: string, session?: string, cursor?: string) =>
    request<HistoryFound>("GET", "/history/search", { query: { q: text, session_id: session, cursor } }),

  approval: (machine: string, approval: string) =>
    request<Approval>("GET", `/machines/${id(machine)}/approvals/${id(approval)}`),
  answeredApprovals: (cursor?: string) =>
    request<ApprovalList>("GET", "/approvals", { query: { which: "answered", limit: "30", cursor } }),
  decideApproval: (machine: string, approval: string, inputSha256: string, answer: Answer) =>
    request<Approval>("POST", `/machines/${id(machine)}/approvals/${id(approval)}/decide`, {
      body: { input_sha256: inputSha256, answer },
    }),
  decideApprovals: (approvals: ApprovalName[], inputSha256: string, answer: Answer) =>
    request<DecidedAll>("POST", "/approvals/decide", {
      body: { approvals, input_sha256: inputSha256, answer },
    }),
  acquireLock: (machine: string, lock: AcquireLock) =>
    request<Lock>("POST", `/machines/${id(machine)}/locks`, { body: lock }),
  releaseLock: (machine: string, lock: string, force: boolean, reason: string | null) =>
    request<void>("POST", `/machines/${id(machine)}/locks/${id(lock)}/release`, { body: { force, reason } }),

  lookupPairing: (code: string) => request<PairingLookup>("POST", "/pairing/lookup", { body: { code } }),
  claimPairing: (pairing: string, code: string, browserNonce: string) =>
    request<PairingClaim>("POST", "/pairing/claim", {
      body: { pairing_id: pairing, code, browser_nonce: browserNonce },
    }),
  pairingStatus: (pairing: string) => request<PairingStatus>("GET", `/pairing/status/${id(pairing)}`),
  cancelPairing: (pairing: string) => request<void>("POST", `/pairing/cancel/${id(pairing)}`),
  enrolmentTokens: () => request<EnrolmentToken[]>("GET", "/enrolment-tokens"),
  createEnrolmentToken: (label: string | null) =>
    request<NewEnrolmentToken>("POST", "/enrolment-tokens", { body: { label } }),
  revokeEnrolmentToken: (token: string) => request<void>("DELETE", `/enrolment-tokens/${id(token)}`),
};
