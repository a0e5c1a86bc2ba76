/**
 * The browser's side of a pairing: look, claim, compare, wait. The relay is not trusted with the comparison: key,
 * commitment and nonces are checked here, and the digits are computed here.
 */
import { ref, shallowRef } from "vue";

import { api, ApiError } from "@/api/client";
import type { PairingLookup } from "@/api/types";

import { isCommitted, newNonce, sasDigits } from "./sas";

/** How often the relay is asked: the agent itself polls every 2 s. */
const POLL_MS = 1_500;
const SAVED_KEY = "claudenest.pairing";

export type PairingStep =
  | "enter"
  | "looking"
  | "facts"
  | "claiming"
  /** Claimed; the machine has not shown its nonce yet. */
  | "waiting"
  | "compare"
  | "done"
  | "denied"
  | "expired"
  /** The relay's answer does not fit the machine's key. */
  | "mismatch";

interface Saved {
  code: string;
  lookup: PairingLookup;
  browserNonce: string;
  account: string;
}

export function usePairing() {
  const step = ref<PairingStep>("enter");
  const lookup = shallowRef<PairingLookup | null>(null);
  const account = ref<string | null>(null);
  const digits = ref<string | null>(null);
  const machineId = ref<string | null>(null);
  const error = shallowRef<ApiError | null>(null);
  let code = "";
  let browserNonce = "";
  let timer: ReturnType<typeof setTimeout> | undefined;
  /** Grows when a pairing is left; late answers of an older one are dropped. */
  let run = 0;

  async function look(wanted: string): Promise<void> {
    const mine = ++run;
    code = wanted;
    step.value = "looking";
    error.value = null;
    try {
      const found = await api.lookupPairing(wanted);
      if (mine !== run) return;
      lookup.value = found;
      step.value = found.state === "denied" || found.state === "expired" ? found.state : "facts";
    } catch (failure) {
      if (mine === run) fail(failure, "enter");
    }
  }

  async function claim(): Promise<void> {
    const found = lookup.value;
    if (!found) return;
    const mine = ++run;
    step.value = "claiming";
    error.value = null;
    // Chosen only now: the machine committed to its own before it could know this one.
    browserNonce = newNonce();
    try {
      const claimed = await api.claimPairing(found.pairing_id, code, browserNonce);
      if (mine !== run) return;
      account.value = claimed.account;
      const saved: Saved = { code, lookup: found, browserNonce, account: claimed.account };
      sessionStorage.setItem(SAVED_KEY, JSON.stringify(saved));
      step.value = "waiting";
      poll(mine);
    } catch (failure) {
      if (mine === run) fail(failure, "facts");
    }
  }

  /** Takes up a pairing that a reload interrupted. */
  function resume(): boolean {
    try {
      const saved = JSON.parse(sessionStorage.getItem(SAVED_KEY) ?? "null") as Saved | null;
      if (!saved || saved.lookup.expires_at < Date.now()) return false;
      ({ code, browserNonce } = saved);
      lookup.value = saved.lookup;
      account.value = saved.account;
      step.value = "waiting";
      poll(++run);
      return true;
    } catch {
      return false;
    }
  }

  function poll(mine: number): void {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      await ask(mine);
      if (mine === run && (step.value === "waiting" || step.value === "compare")) poll(mine);
    }, POLL_MS);
  }

  async function ask(mine: number): Promise<void> {
    const found = lookup.value;
    if (!found) return;
    try {
      const status = await api.pairingStatus(found.pairing_id);
      if (mine !== run) return;
      error.value = null;
      const isSame =
        status.public_key === found.public_key &&
        status.commitment === found.commitment &&
        status.browser_nonce === browserNonce &&
        status.account === account.value;
      const nonce = status.agent_nonce ?? null;
      if (!isSame || (nonce !== null && !isCommitted(found.public_key, nonce, found.commitment))) {
        await leave("mismatch");
        return;
      }
      if (nonce !== null && account.value !== null) {
        digits.value = sasDigits({
          pairingId: found.pairing_id,
          publicKey: found.public_key,
          agentNonce: nonce,
          browserNonce,
          account: account.value,
        });
        if (step.value === "waiting") step.value = "compare";
      }
      if (status.state === "denied" || status.state === "expired") finish(status.state);
      if (status.state === "consumed") {
        machineId.value = status.machine_id ?? null;
        finish("done");
      }
    } catch (failure) {
      if (mine !== run) return;
      if (failure instanceof ApiError && failure.status === 404) finish("expired");
      // Anything else passes: the next question will tell.
      else if (failure instanceof ApiError) error.value = failure;
      else throw failure;
    }
  }

  async function cancel(): Promise<void> {
    await leave("denied");
  }

  /** Says no to the relay, so that no token can come of this any more. */
  async function leave(next: "denied" | "mismatch"): Promise<void> {
    const found = lookup.value;
    finish(next);
    if (found) await api.cancelPairing(found.pairing_id).catch(() => undefined);
  }

  function finish(next: PairingStep): void {
    run++;
    clearTimeout(timer);
    sessionStorage.removeItem(SAVED_KEY);
    step.value = next;
  }

  function restart(): void {
    finish("enter");
    lookup.value = null;
    digits.value = null;
    account.value = null;
    error.value = null;
  }

  /** The page goes away; the pairing itself goes on and can be taken up again. */
  function dispose(): void {
    run++;
    clearTimeout(timer);
  }

  function fail(failure: unknown, back: PairingStep): void {
    if (!(failure instanceof ApiError)) throw failure;
    error.value = failure;
    step.value = back;
  }

  return { step, lookup, account, digits, machineId, error, look, claim, resume, cancel, restart, dispose };
}
