/** A list that does not move under the pointer: while it is held, what is new comes last and what is gone stays. */
import { onScopeDispose, type Ref, ref, watch } from "vue";

import type { ApprovalInfo } from "@/api/types";
import { byAge, byRisk, keyOf, sameness } from "@/stores/guard";

export interface AskGroup {
  key: string;
  /** Keys of the approvals in it. */
  members: string[];
}
export type InboxSort = "risk" | "age";

/** A touch has no pointer that stays: the list rests for as long as a second tap may take. */
const TOUCH_REST_MS = 1_500;

/** Groups asks that ask exactly the same, in the order in which they are to be answered; who cannot be answered comes last. */
export function groupsOf(
  asks: ApprovalInfo[],
  sort: InboxSort,
  isAway: (ask: ApprovalInfo) => boolean = () => false,
): AskGroup[] {
  const groups = new Map<string, AskGroup>();
  const order = sort === "risk" ? byRisk : byAge;
  const sorted = [...asks].sort((a, b) => Number(isAway(a)) - Number(isAway(b)) || order(a, b));
  for (const ask of sorted) {
    const key = keyOf(ask);
    const same = `${isAway(ask)} ${sameness(ask) ?? key}`;
    const group = groups.get(same);
    if (group) group.members.push(key);
    else groups.set(same, { key, members: [key] });
  }
  return [...groups.values()];
}

/** The list while it is held: groups keep their places and members, new asks come behind them. */
export function heldList(shown: AskGroup[], wanted: AskGroup[]): AskGroup[] {
  const known = new Set(shown.flatMap((group) => group.members));
  const added = wanted.flatMap((group) => {
    const members = group.members.filter((key) => !known.has(key));
    return members.length > 0 ? [{ key: members[0] ?? group.key, members }] : [];
  });
  return [...shown, ...added];
}

export function useSteadyList(wanted: Ref<AskGroup[]>): {
  shown: Ref<AskGroup[]>;
  hold: () => void;
  rest: () => void;
  release: () => void;
} {
  const shown = ref<AskGroup[]>(wanted.value) as Ref<AskGroup[]>;
  let isHeld = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const update = () => (shown.value = isHeld ? heldList(shown.value, wanted.value) : wanted.value);
  watch(wanted, update);
  function hold(): void {
    clearTimeout(timer);
    isHeld = true;
  }
  function release(): void {
    clearTimeout(timer);
    isHeld = false;
    update();
  }
  function rest(): void {
    hold();
    timer = setTimeout(release, TOUCH_REST_MS);
  }
  onScopeDispose(() => clearTimeout(timer));
  return { shown, hold, rest, release };
}
