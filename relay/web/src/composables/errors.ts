/** Sentences for failures. */
import { useI18n } from "vue-i18n";

import { ApiError } from "@/api/client";
import { useNotices } from "@/stores/notices";

export function useErrors() {
  const { t, te } = useI18n();
  const notices = useNotices();

  /** The relay's own sentence where it has one: it knows more. */
  function errorText(error: unknown): string {
    if (!(error instanceof ApiError)) throw error;
    return codeText(error.code, error.message);
  }
  function codeText(code: string, message = ""): string {
    if (message) return message;
    const key = `errors.${code}`;
    return te(key) ? t(key) : t("errors.unknown", { code });
  }
  /** Runs an action and tells a failure; null if it failed. */
  async function attempt<T>(action: () => Promise<T>): Promise<{ value: T } | null> {
    try {
      return { value: await action() };
    } catch (error) {
      notices.add("bad", errorText(error));
      return null;
    }
  }
  return { errorText, codeText, attempt };
}
