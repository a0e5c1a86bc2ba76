/** Approvals and locks as the socket tells them, and the answers that this page is giving. */
import { defineStore } from "pinia";
import { computed, ref } from "vue";

import { api, ApiError } from "@/api/client";
import type { Answer, Approval, ApprovalInfo, Lock } from "@/api/types";
import type { UserMessage } from "@/wire/socket";

/** Answers that stay on the page after they came; the rest is asked for. */
const MAX_RECENT = 60;

/** Names one approval or lock on one machine: machines choose their ids themselves. */
export const keyOf = (thing: { machine_id?: string | null; id: string }) =>
  `${thing.machine_id ?? ""}/${thing.id}`;

/** An answer of this page that its machine has not confirmed. */
export interface OwnAnswer {
  answer: Answer;
  since: number;
}

export interface Refusal {
  code: string;
  message: string;
}

const isFinal = (approval: Approval) =>
  approval.state === "applied" || approval.state === "expired" || approval.state === "withdrawn";

const RISKS = { low: 0, medium: 1, high: 2 } as const;

/** Worst first, then who waits longest. */
export function byRisk(a: ApprovalInfo, b: ApprovalInfo): number {
  return RISKS[b.risk] - RISKS[a.risk] || byAge(a, b);
}
export function byAge(a: ApprovalInfo, b: ApprovalInfo): number {
  return a.created_at - b.created_at || a.id.localeCompare(b.id);
}

/** What makes two asks the same for a person: kind, tool and the exact input. Null: this one stands alone. */
export function sameness(approval: ApprovalInfo): string | null {
  if (approval.kind !== "tool" || approval.is_brief || approval.input === null) return null;
  return JSON.stringify([approval.tool, approval.input_sha256, approval.input]);
}

export const useGuard = defineStore("guard", () => {
  /** Those that are not final. */
  const approvals = ref<Record<string, ApprovalInfo>>({});
  /** Those that became final while this page looked, the last one first. */
  const recent = ref<ApprovalInfo[]>([]);
  const locks = ref<Record<string, Lock>>({});
  /** Whose answer a machine is looking at. */
  const answering = ref<Record<string, string>>({});
  const own = ref<Record<string, OwnAnswer>>({});
  const newListeners = new Set<(approval: ApprovalInfo) => void>();

  function clear(): void {
    approvals.value = {};
    recent.value = [];
    locks.value = {};
    answering.value = {};
    own.value = {};
  }

  function apply(message: UserMessage): void {
    switch (message.type) {
      case "ready": {
        const known = approvals.value;
        const open = message.approvals ?? [];
        approvals.value = Object.fromEntries(open.map((one) => [keyOf(one), whole(one, known[keyOf(one)])]));
        locks.value = Object.fromEntries((message.locks ?? []).map((lock) => [keyOf(lock), lock]));
        answering.value = {};
        for (const one of open) if (!known[keyOf(one)]) tellNew(one);
        break;
      }
      case "approval":
        learn(message.approval);
        break;
      case "approval_removed":
        drop(`${message.machine}/${message.approval}`);
        break;
      case "approval_answering": {
        const key = `${message.machine}/${message.approval}`;
        if (message.is_over) delete answering.value[key];
        else answering.value[key] = message.by;
        break;
      }
      case "lock":
        locks.value[keyOf(message.lock)] = message.lock;
        break;
      case "lock_removed":
        delete locks.value[`${message.machine}/${message.lock}`];
        break;
      case "machine_removed":
        for (const key of Object.keys(approvals.value)) {
          if (key.startsWith(`${message.machine}/`)) drop(key);
        }
        for (const key of Object.keys(locks.value)) {
          if (key.startsWith(`${message.machine}/`)) delete locks.value[key];
        }
        break;
    }
  }

  function drop(key: string): void {
    delete approvals.value[key];
    delete answering.value[key];
    delete own.value[key];
  }

  /** What was loaded whole stays whole when news come without it. */
  function whole(news: ApprovalInfo, known: ApprovalInfo | undefined): ApprovalInfo {
    if (!news.is_brief || !known || known.is_brief || known.input_sha256 !== news.input_sha256) return news;
    return { ...news, input: known.input, diff: known.diff ?? null, is_brief: false };
  }

  /** Takes over an approval, unless something newer is known. */
  function learn(news: ApprovalInfo): void {
    const key = keyOf(news);
    const known = approvals.value[key];
    const over = recent.value.find((one) => keyOf(one) === key);
    if ((known && known.version > news.version) || (over && over.version >= news.version)) return;
    const next = whole(news, known);
    if (isFinal(news)) {
      drop(key);
      recent.value = [next, ...recent.value.filter((one) => keyOf(one) !== key)].slice(0, MAX_RECENT);
    } else {
      approvals.value[key] = next;
      if (!known) tellNew(next);
    }
  }

  function tellNew(approval: ApprovalInfo): void {
    if (approval.state === "pending") for (const listener of newListeners) listener(approval);
  }
  /** Called for each approval that is new to this page and waits for an answer. */
  function onNew(listener: (approval: ApprovalInfo) => void): () => void {
    newListeners.add(listener);
    return () => newListeners.delete(listener);
  }

  /** An approval, open or lately answered. */
  function find(key: string): ApprovalInfo | null {
    return approvals.value[key] ?? recent.value.find((one) => keyOf(one) === key) ?? null;
  }

  /** Gets what was left out because it is long. */
  async function load(approval: ApprovalInfo): Promise<void> {
    if (!approval.is_brief || !approval.machine_id) return;
    learn({ ...(await api.approval(approval.machine_id, approval.id)), is_brief: false });
    const known = approvals.value[keyOf(approval)];
    // The relay's copy may be older than what was told since; what is asked is the same.
    if (known?.is_brief) throw new ApiError("conflict", "", 409);
  }

  /** Answers approvals that ask the same. What was not taken comes back with the reason, by key. */
  async function decide(asks: ApprovalInfo[], answer: Answer): Promise<Record<string, Refusal>> {
    const first = asks[0];
    if (!first) return {};
    const refusals: Record<string, Refusal> = {};
    for (const ask of asks) own.value[keyOf(ask)] = { answer, since: Date.now() };
    try {
      if (asks.length === 1) {
        const told = await api.decideApproval(first.machine_id ?? "", first.id, first.input_sha256, answer);
        learn({ ...told, is_brief: false });
      } else {
        const names = asks.map((ask) => ({ machine_id: ask.machine_id ?? "", id: ask.id }));
        const { results } = await api.decideApprovals(names, first.input_sha256, answer);
        for (const result of results) {
          if (result.approval) learn(result.approval);
          else if (result.error) refusals[`${result.machine_id}/${result.id}`] = result.error;
        }
      }
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      for (const ask of asks) refusals[keyOf(ask)] = { code: error.code, message: error.message };
    } finally {
      for (const ask of asks) delete own.value[keyOf(ask)];
    }
    return refusals;
  }

  const open = computed(() => Object.values(approvals.value));
  const pending = computed(() => open.value.filter((one) => one.state === "pending").sort(byRisk));
  const decided = computed(() =>
    open.value.filter((one) => one.state === "decided").sort((a, b) => b.state_since - a.state_since),
  );
  const lockList = computed(() =>
    Object.values(locks.value).sort((a, b) => a.path.localeCompare(b.path) || a.fence - b.fence),
  );
  const pendingOf = (session: string) => pending.value.filter((one) => one.session === session);

  return {
    approvals,
    recent,
    locks,
    answering,
    own,
    open,
    pending,
    decided,
    lockList,
    apply,
    clear,
    learn,
    find,
    load,
    decide,
    onNew,
    pendingOf,
  };
});
