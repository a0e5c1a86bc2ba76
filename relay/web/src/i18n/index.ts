/** English and French; the browser's wish unless the person chose. */
import { createI18n } from "vue-i18n";

import type { Locale } from "@/stores/prefs";

import { en } from "./en";
import { fr } from "./fr";

export const LOCALES: Locale[] = ["en", "fr"];

export function preferredLocale(saved: Locale | null): Locale {
  if (saved && LOCALES.includes(saved)) return saved;
  for (const wish of navigator.languages ?? []) {
    const language = wish.slice(0, 2).toLowerCase() as Locale;
    if (LOCALES.includes(language)) return language;
  }
  return "en";
}

export const i18n = createI18n({
  legacy: false,
  locale: "en",
  fallbackLocale: "en",
  messages: { en, fr },
  // French treats 0 as singular.
  pluralRules: { fr: (choice: number, count: number) => (count < 2 ? 0 : choice > 1 ? 1 : 0) },
});
