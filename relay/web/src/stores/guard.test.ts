import { createPinia, setActivePinia } from "pinia";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ref } from "vue";

import { api, ApiError } from "@/api/client";
import type { Approval, ApprovalInfo, Lock } from "@/api/types";
import { groupsOf, heldList, useSteadyList } from "@/composables/steady";

import { keyOf, useGuard } from "./guard";

const MACHINE = "m1";
function ask(id: string, change: Partial<ApprovalInfo> = {}): ApprovalInfo {
  return {
    id,
    machine_id: MACHINE,
    session: "s1",
    session_name: "fix-login",
    kind: "tool",
    tool: "Bash",
    summary: "wants to run `ls`",
    input: { command: `ls ${id}` },
    input_sha256: `digest of ${id}`,
    cwd: "/srv",
    risk: "low",
    notes: [],
    why: "Claude Code asks",
    state: "pending",
    state_since: 1,
    created_at: 1,
    version: 1,
    is_brief: false,
    ...change,
  } as ApprovalInfo;
}
const ready = (approvals: ApprovalInfo[], locks: Lock[] = []) => ({
  type: "ready" as const,
  relay_version: "1",
  time: 1,
  machines: [],
  sessions: [],
  approvals,
  locks,
});
const ids = (list: { id: string }[]) => list.map((one) => one.id);

describe("approvals of the page", () => {
  beforeEach(() => setActivePinia(createPinia()));
  afterEach(() => vi.restoreAllMocks());

  it("puts the worst risk first, then who waits longest", () => {
    const guard = useGuard();
    guard.apply(
      ready([
        ask("young", { created_at: 9 }),
        ask("old", { created_at: 2 }),
        ask("bad", { risk: "high", created_at: 5 }),
        ask("mid", { risk: "medium" }),
        ask("done", { state: "decided" }),
      ]),
    );
    expect(ids(guard.pending)).toEqual(["bad", "mid", "old", "young"]);
    expect(ids(guard.decided)).toEqual(["done"]);
  });

  it("believes the newest version, and keeps what is over", () => {
    const guard = useGuard();
    guard.apply({ type: "approval", approval: ask("a", { version: 3, state: "decided" }) });
    guard.apply({ type: "approval", approval: ask("a", { version: 2 }) });
    expect(guard.find(`${MACHINE}/a`)?.state).toBe("decided");
    guard.apply({ type: "approval", approval: ask("a", { version: 4, state: "applied" }) });
    expect(guard.open).toEqual([]);
    guard.apply({ type: "approval", approval: ask("a", { version: 3, state: "decided" }) });
    expect(guard.open).toEqual([]);
    expect(guard.recent.map((one) => one.state)).toEqual(["applied"]);
    guard.apply({ type: "approval", approval: ask("b") });
    guard.apply({ type: "approval_removed", machine: MACHINE, approval: "b" });
    expect(guard.open).toEqual([]);
  });

  it("tells what is new once, also after the socket was away", () => {
    const guard = useGuard();
    const told: string[] = [];
    guard.onNew((one) => told.push(one.id));
    guard.apply({ type: "approval", approval: ask("a") });
    guard.apply({ type: "approval", approval: ask("a", { version: 2 }) });
    guard.apply(ready([ask("a", { version: 2 }), ask("b"), ask("c", { state: "decided" })]));
    expect(told).toEqual(["a", "b"]);
  });

  it("keeps machines with the same ids apart", () => {
    const guard = useGuard();
    guard.apply(ready([ask("a"), ask("a", { machine_id: "m2", risk: "high" })]));
    expect(guard.pending.map((one) => one.machine_id)).toEqual(["m2", MACHINE]);
    guard.apply({ type: "machine_removed", machine: "m2" });
    expect(guard.pending.map((one) => one.machine_id)).toEqual([MACHINE]);
  });

  it("keeps what was loaded whole when news come without it", async () => {
    const guard = useGuard();
    const brief = ask("a", { input: null as never, is_brief: true });
    guard.apply({ type: "approval", approval: brief });
    vi.spyOn(api, "approval").mockResolvedValue(
      ask("a", { input: { command: "long" } as never }) as Approval,
    );
    await guard.load(brief);
    expect(guard.pending[0]).toMatchObject({ input: { command: "long" }, is_brief: false });
    guard.apply({ type: "approval", approval: { ...brief, version: 2 } });
    expect(guard.pending[0]).toMatchObject({ input: { command: "long" }, is_brief: false, version: 2 });
    // Another input under the same id is not shown with the old one.
    guard.apply({ type: "approval", approval: { ...brief, version: 3, input_sha256: "other" } });
    expect(guard.pending[0]).toMatchObject({ input: null, is_brief: true });
  });

  it("takes the machine's word for an answer, and gives its refusal back", async () => {
    const guard = useGuard();
    guard.apply(ready([ask("a")]));
    const one = guard.pending[0]!;
    const decide = vi.spyOn(api, "decideApproval");
    decide.mockRejectedValueOnce(new ApiError("conflict", "bob was first.", 409));
    const refused = guard.decide([one], { verdict: "allow" });
    expect(guard.own[keyOf(one)]).toBeDefined();
    expect(await refused).toEqual({ [`${MACHINE}/a`]: { code: "conflict", message: "bob was first." } });
    expect(guard.pending).toHaveLength(1);
    expect(guard.own).toEqual({});
    decide.mockResolvedValueOnce(ask("a", { state: "decided", version: 2 }) as Approval);
    expect(await guard.decide([one], { verdict: "deny", reason: "no" })).toEqual({});
    expect(decide).toHaveBeenLastCalledWith(MACHINE, "a", one.input_sha256, {
      verdict: "deny",
      reason: "no",
    });
    expect(ids(guard.decided)).toEqual(["a"]);
  });

  it("answers several at once, each with its own outcome", async () => {
    const guard = useGuard();
    const same = { input: { command: "ls" } as never, input_sha256: "d" };
    guard.apply(ready([ask("a", same), ask("b", { ...same, machine_id: "m2" })]));
    vi.spyOn(api, "decideApprovals").mockResolvedValue({
      results: [
        { machine_id: MACHINE, id: "a", approval: ask("a", { ...same, state: "decided", version: 2 }) },
        { machine_id: "m2", id: "b", error: { code: "machine_offline", message: "away" } },
      ],
    });
    expect(await guard.decide([...guard.pending], { verdict: "allow" })).toEqual({
      "m2/b": { code: "machine_offline", message: "away" },
    });
    expect(ids(guard.decided)).toEqual(["a"]);
  });

  it("follows locks", () => {
    const guard = useGuard();
    const lock = { id: "l", machine_id: MACHINE, path: "/a", version: 1, fence: 1 } as Lock;
    guard.apply(ready([], [lock]));
    guard.apply({ type: "lock", lock: { ...lock, id: "k", path: "/0" } });
    expect(ids(guard.lockList)).toEqual(["k", "l"]);
    guard.apply({ type: "lock_removed", machine: MACHINE, lock: "l", end: "released" });
    expect(ids(guard.lockList)).toEqual(["k"]);
  });
});

describe("the list of asks", () => {
  const same = { input: { command: "ls" } as never, input_sha256: "d" };

  it("groups what asks exactly the same, and nothing else", () => {
    const list = [
      ask("a", same),
      ask("b", { ...same, machine_id: "m2" }),
      // The same digest is only what its machine says.
      ask("c", { input: { command: "rm" } as never, input_sha256: "d" }),
      ask("d", { ...same, is_brief: true, input: null as never }),
      ask("e", { ...same, kind: "question" }),
      ask("f", { ...same, tool: "Read" }),
    ];
    expect(groupsOf(list, "age").map((group) => group.members)).toEqual([
      ["m1/a", "m2/b"],
      ["m1/c"],
      ["m1/d"],
      ["m1/e"],
      ["m1/f"],
    ]);
  });

  it("does not move while it is held, and takes nobody into a group unseen", () => {
    const wanted = ref(groupsOf([ask("a", same)], "risk"));
    const list = useSteadyList(wanted);
    list.hold();
    wanted.value = groupsOf(
      [ask("x", { risk: "high" }), ask("a", same), ask("b", { ...same, machine_id: "m2" })],
      "risk",
    );
    expect(heldList(list.shown.value, wanted.value).map((group) => group.members)).toEqual([
      ["m1/a"],
      ["m1/x"],
      ["m2/b"],
    ]);
    list.release();
    expect(list.shown.value.map((group) => group.members)).toEqual([["m1/x"], ["m1/a", "m2/b"]]);
  });
});
