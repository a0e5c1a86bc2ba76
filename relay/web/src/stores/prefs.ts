/** Choices of this person in this browser. Nothing here is secret; losing it costs nothing. */
import { defineStore } from "pinia";
import { ref, watch } from "vue";

export type Theme = "system" | "dark" | "light";
export type Locale = "en" | "fr";

export interface Prefs {
  theme: Theme;
  locale: Locale | null;
  fontSize: number;
  /** True asks for every byte when output is faster than the page. */
  isWhole: boolean;
  sessionsView: "list" | "grid";
  sessionsScope: "live" | "all";
  inboxSort: "risk" | "age";
  /** A sound for each new ask. */
  hasSound: boolean;
  /** A notification of the browser for each new ask while the page is not in front. */
  hasNotifications: boolean;
}

const KEY = "claudenest.prefs";
export const MIN_FONT = 9;
export const MAX_FONT = 28;

const DEFAULTS: Prefs = {
  theme: "system",
  locale: null,
  fontSize: 14,
  isWhole: false,
  sessionsView: "list",
  sessionsScope: "all",
  inboxSort: "risk",
  hasSound: false,
  hasNotifications: false,
};

function load(): Prefs {
  try {
    const saved = JSON.parse(localStorage.getItem(KEY) ?? "{}") as Partial<Prefs>;
    const prefs = { ...DEFAULTS, ...saved };
    prefs.fontSize = Math.min(MAX_FONT, Math.max(MIN_FONT, Math.round(Number(prefs.fontSize)) || 14));
    return prefs;
  } catch {
    return { ...DEFAULTS };
  }
}

export const usePrefs = defineStore("prefs", () => {
  const prefs = ref(load());
  watch(
    prefs,
    (value) => {
      try {
        localStorage.setItem(KEY, JSON.stringify(value));
      } catch {
        // A browser that stores nothing still works for as long as the page lives.
      }
      applyTheme(value.theme);
    },
    { deep: true, immediate: true },
  );
  return { prefs };
});

function applyTheme(theme: Theme): void {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}
