/** What calls a person to the page: a sound, a notification of the browser, a number on the tab's icon. */
import { onScopeDispose, watch } from "vue";
import { useI18n } from "vue-i18n";
import { useRouter } from "vue-router";

import type { ApprovalInfo } from "@/api/types";
import { keyOf, useGuard } from "@/stores/guard";
import { useLive } from "@/stores/live";
import { usePrefs } from "@/stores/prefs";

/** Several tabs hear of the same ask within this time; one of them rings. */
const RING_ONCE_MS = 3_000;
const RANG = "claudenest.rang";

let audio: AudioContext | null = null;

/** Two short notes. Browsers allow it once the person has touched the page. */
export function ring(): void {
  try {
    audio ??= new AudioContext();
    if (audio.state === "suspended") void audio.resume();
    for (const [index, pitch] of [660, 880].entries()) {
      const at = audio.currentTime + index * 0.12;
      const gain = audio.createGain();
      gain.gain.setValueAtTime(0, at);
      gain.gain.linearRampToValueAtTime(0.08, at + 0.01);
      gain.gain.exponentialRampToValueAtTime(0.0001, at + 0.22);
      const note = audio.createOscillator();
      note.frequency.value = pitch;
      note.connect(gain).connect(audio.destination);
      note.start(at);
      note.stop(at + 0.24);
    }
  } catch {
    // A browser without sound still has the number on the tab.
  }
}

/** True for one of the tabs of this browser. */
function isFirstToRing(key: string): boolean {
  try {
    const [last, at] = (localStorage.getItem(RANG) ?? "").split(" ");
    if (last === key && Date.now() - Number(at) < RING_ONCE_MS) return false;
    localStorage.setItem(RANG, `${key} ${Date.now()}`);
  } catch {
    // Nothing is stored here: every tab rings.
  }
  return true;
}

/** Asks the browser for leave to notify; only ever called by a click. */
export async function askToNotify(): Promise<"granted" | "denied" | "unsupported"> {
  if (typeof Notification === "undefined") return "unsupported";
  try {
    return (await Notification.requestPermission()) === "granted" ? "granted" : "denied";
  } catch {
    return "unsupported";
  }
}

const ICON = "/icon.svg";

/** The icon with a number in its corner. */
export function iconWith(count: number): string {
  if (count === 0) return ICON;
  const text = count > 99 ? "99" : String(count);
  const size = text.length > 1 ? 15 : 18;
  const svg =
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="7" fill="#1b1d22"/>` +
    `<path d="M6 9l5 5-5 5" fill="none" stroke="#e8825c" stroke-width="2.6" stroke-linecap="round" stroke-linejoin="round"/>` +
    `<circle cx="20" cy="20" r="12" fill="#d9480f"/><text x="20" y="${20 + size * 0.36}" font-family="sans-serif" ` +
    `font-size="${size}" font-weight="700" fill="#fff" text-anchor="middle">${text}</text></svg>`;
  return `data:image/svg+xml,${encodeURIComponent(svg)}`;
}

export function useAlerts(): void {
  const guard = useGuard();
  const live = useLive();
  const { prefs } = usePrefs();
  const { t } = useI18n();
  const router = useRouter();
  const shown = new Map<string, Notification>();

  function notify(ask: ApprovalInfo): void {
    if (typeof Notification === "undefined" || Notification.permission !== "granted") return;
    if (document.visibilityState === "visible" && document.hasFocus()) return;
    const key = keyOf(ask);
    const machine = live.machines[ask.machine_id ?? ""]?.name ?? t("ask.theMachine");
    try {
      // The same tag in every tab: the browser shows one.
      const notification = new Notification(`${machine} · ${ask.session_name}`, {
        body: ask.summary,
        tag: key,
        icon: ICON,
      });
      notification.onclick = () => {
        window.focus();
        void router.push({ name: "inbox" });
        notification.close();
      };
      shown.set(key, notification);
    } catch {
      // Phones want a service worker for this; the number on the tab stays.
    }
  }

  const stop = guard.onNew((ask) => {
    if (prefs.hasSound && isFirstToRing(keyOf(ask))) ring();
    if (prefs.hasNotifications) notify(ask);
  });
  watch(
    () => live.needs,
    (count) => {
      const link = document.querySelector<HTMLLinkElement>('link[rel="icon"]');
      if (link) link.href = iconWith(count);
    },
    { immediate: true },
  );
  watch(
    () => guard.pending.length,
    () => {
      for (const [key, notification] of shown) {
        if (guard.approvals[key]?.state === "pending") continue;
        notification.close();
        shown.delete(key);
      }
    },
  );
  onScopeDispose(stop);
}
