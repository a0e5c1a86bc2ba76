/** Machines and sessions as the socket tells them, and the socket itself. */
import { defineStore } from "pinia";
import { computed, ref, shallowRef } from "vue";

import { api, ApiError } from "@/api/client";
import type { MachineInfo, SessionInfo } from "@/api/types";
import { debugHook } from "@/terminal/debug";
import { LiveSocket, type LinkState, NotLoggedIn, type UserMessage } from "@/wire/socket";

import { useGuard } from "./guard";

export const useLive = defineStore("live", () => {
  const guard = useGuard();
  const machines = ref<Record<string, MachineInfo>>({});
  const sessions = ref<Record<string, SessionInfo>>({});
  /** True once the full state has been seen; before that, "none" would be a guess. */
  const isLoaded = ref(false);
  const link = shallowRef<LinkState>({ phase: "connecting", since: Date.now() });
  const relayVersion = ref<string | null>(null);
  /** Version at page load; another one later means that the page is older than the relay. */
  const firstVersion = ref<string | null>(null);
  let socket: LiveSocket | null = null;

  function start(): LiveSocket {
    if (socket) return socket;
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const live = new LiveSocket({
      url: `${scheme}//${location.host}/ws`,
      fetchTicket: async () => {
        try {
          return (await api.wsTicket()).ticket;
        } catch (error) {
          if (error instanceof ApiError && error.status === 401) throw new NotLoggedIn(error.message);
          throw error;
        }
      },
    });
    live.onState((state) => (link.value = state));
    live.onMessage(apply);
    socket = live;
    live.start();
    const hook = debugHook();
    if (hook) {
      hook.link = () => link.value;
      hook.cut = () => live.cut();
    }
    return live;
  }

  function stop(): void {
    socket?.stop();
    socket = null;
    machines.value = {};
    sessions.value = {};
    guard.clear();
    isLoaded.value = false;
  }

  function apply(message: UserMessage): void {
    guard.apply(message);
    switch (message.type) {
      case "ready":
        machines.value = Object.fromEntries(message.machines.map((machine) => [machine.id, machine]));
        sessions.value = Object.fromEntries(message.sessions.map((session) => [session.id, session]));
        firstVersion.value ??= message.relay_version;
        relayVersion.value = message.relay_version;
        isLoaded.value = true;
        break;
      case "machine":
        machines.value[message.machine.id] = message.machine;
        break;
      case "machine_removed":
        delete machines.value[message.machine];
        for (const session of Object.values(sessions.value)) {
          if (session.machine_id === message.machine) delete sessions.value[session.id];
        }
        break;
      case "session":
        sessions.value[message.session.id] = message.session;
        break;
      case "session_removed":
        delete sessions.value[message.session];
        break;
    }
  }

  /** Takes over what a request answered, unless the socket already told something newer. */
  function learnSession(session: SessionInfo): void {
    const known = sessions.value[session.id];
    if (!known || known.state_since <= session.state_since) {
      sessions.value[session.id] = { ...known, ...session };
    }
  }

  function learnMachine(machine: MachineInfo): void {
    machines.value[machine.id] = machine;
  }

  const machineList = computed(() =>
    Object.values(machines.value).sort((a, b) => a.name.localeCompare(b.name)),
  );
  /** In the order in which a person would look: who waits first (longest first), then live ones, then the newest. */
  const sessionList = computed(() => Object.values(sessions.value).sort(compareSessions));
  const waiting = computed(() => sessionList.value.filter((session) => session.state === "waiting_input"));
  /** Everything that waits for the person: asks, and sessions that wait for something else. */
  const needs = computed(
    () =>
      guard.pending.length +
      waiting.value.filter((session) => !guard.open.some((ask) => ask.session === session.id)).length,
  );
  const isOutdated = computed(() => firstVersion.value !== null && relayVersion.value !== firstVersion.value);

  /** Finds a session by id, or by the name that addresses use. */
  function findSession(key: string): SessionInfo | null {
    const byId = sessions.value[key];
    if (byId) return byId;
    return sessionList.value.find((session) => session.name === key) ?? null;
  }

  /** The shortest address of a session: its name if no other machine has the same, else its id. */
  function sessionKey(session: SessionInfo): string {
    const isUnique = Object.values(sessions.value).every(
      (other) => other.id === session.id || other.name !== session.name,
    );
    return isUnique ? session.name : session.id;
  }

  return {
    machines,
    sessions,
    isLoaded,
    link,
    relayVersion,
    isOutdated,
    machineList,
    sessionList,
    waiting,
    needs,
    start,
    stop,
    apply,
    learnSession,
    learnMachine,
    findSession,
    sessionKey,
    retryNow: () => socket?.retryNow(),
    wake: () => socket?.wake(),
  };
});

const RANK: Record<SessionInfo["state"], number> = {
  waiting_input: 0,
  running: 1,
  starting: 1,
  paused: 2,
  created: 3,
  hibernated: 4,
  failed: 5,
  completed: 6,
  terminated: 6,
};

export function compareSessions(a: SessionInfo, b: SessionInfo): number {
  const byRank = RANK[a.state] - RANK[b.state];
  if (byRank !== 0) return byRank;
  if (a.state === "waiting_input") return a.state_since - b.state_since || a.id.localeCompare(b.id);
  // Live ones keep their place: a changing order under the pointer is worse than an old one.
  return b.created_at - a.created_at || a.id.localeCompare(b.id);
}
