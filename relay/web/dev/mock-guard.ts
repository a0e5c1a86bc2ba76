/** Approvals and locks of the mock relay: its machines take the first answer and follow it a second later. */
import type { Answer, ApprovalInfo, Lock, MachineInfo, ServerMessage } from "../src/api/types";
import { demoAnswered, demoApprovals, demoLocks } from "./demo-guard";

type Handler = (match: string[], body: Record<string, unknown>, url: URL) => unknown;
type Refuse = (status: number, code: string, message: string) => Error;

export class MockGuard {
  approvals = new Map<string, ApprovalInfo>();
  answered: ApprovalInfo[] = [];
  locks = new Map<string, Lock>();

  constructor(
    isEmpty: boolean,
    readonly machines: Map<string, MachineInfo>,
    readonly tell: (message: ServerMessage) => void,
    readonly refuse: Refuse,
  ) {
    if (isEmpty) return;
    for (const ask of demoApprovals()) this.approvals.set(ask.id, ask);
    for (const lock of demoLocks()) this.locks.set(lock.id, lock);
    this.answered = demoAnswered();
  }

  #mustBeOnline(machine: string): void {
    if (this.machines.get(machine)?.state !== "online")
      throw this.refuse(409, "machine_offline", "The machine is not connected.");
  }

  #decide(machine: string, id: string, answer: Answer): ApprovalInfo {
    const ask = this.approvals.get(id);
    if (!ask) throw this.refuse(404, "not_found", "There is no such approval.");
    this.#mustBeOnline(machine);
    if (ask.decision)
      throw this.refuse(409, "conflict", `${ask.decision.by.label} was first, and has answered already.`);
    const at = Date.now();
    const next: ApprovalInfo = {
      ...ask,
      state: "decided",
      state_since: at,
      version: ask.version + 1,
      decision: { ...answer, by: { kind: "relay", label: "alice@example.com" }, at },
    };
    this.approvals.set(id, next);
    this.tell({ type: "approval", approval: next });
    setTimeout(() => {
      const applied: ApprovalInfo = { ...next, state: "applied", version: next.version + 1 };
      this.approvals.delete(id);
      this.answered.unshift(applied);
      this.tell({ type: "approval", approval: applied });
    }, 1_000).unref();
    return next;
  }

  routes(): [string, RegExp, Handler][] {
    return [
      ["GET", /^\/approvals$/, () => ({ approvals: this.answered, next: null })],
      [
        "GET",
        /^\/machines\/[^/]+\/approvals\/([^/]+)$/,
        ([id]) => this.approvals.get(id ?? "") ?? this.answered.find((ask) => ask.id === id),
      ],
      [
        "POST",
        /^\/machines\/([^/]+)\/approvals\/([^/]+)\/decide$/,
        ([machine, id], body) => this.#decide(machine ?? "", id ?? "", body.answer as Answer),
      ],
      [
        "POST",
        /^\/approvals\/decide$/,
        (_m, body) => ({
          results: (body.approvals as { machine_id: string; id: string }[]).map((name) => {
            try {
              return { ...name, approval: this.#decide(name.machine_id, name.id, body.answer as Answer) };
            } catch (error) {
              return { ...name, error: { code: "conflict", message: (error as Error).message } };
            }
          }),
        }),
      ],
      [
        "POST",
        /^\/machines\/([^/]+)\/locks$/,
        ([machine], body) => {
          this.#mustBeOnline(machine ?? "");
          const now = Date.now();
          const lock = {
            ...(demoLocks()[2] as Lock),
            ...(body as Partial<Lock>),
            id: `01900000-0000-7000-8000-${now.toString(16).padStart(12, "0")}`,
            machine_id: machine ?? "",
            since: now,
            expires_at: now + Number(body.lease_s ?? 1_800) * 1_000,
          };
          this.locks.set(lock.id, lock);
          this.tell({ type: "lock", lock });
          return lock;
        },
      ],
      [
        "POST",
        /^\/machines\/([^/]+)\/locks\/([^/]+)\/release$/,
        ([machine, lock]) => {
          this.#mustBeOnline(machine ?? "");
          this.locks.delete(lock ?? "");
          this.tell({ type: "lock_removed", machine: machine ?? "", lock: lock ?? "", end: "released" });
          return null;
        },
      ],
    ];
  }
}
