/** What became of an ask, in a sentence. */
import { useI18n } from "vue-i18n";

import type { ApprovalInfo } from "@/api/types";

import { formatClock } from "./time";

export function useOutcome() {
  const { t, locale } = useI18n();
  const at = (ask: ApprovalInfo) => ask.decision?.at ?? ask.state_since;
  function outcomeOf(ask: ApprovalInfo): string {
    const { decision, state, state_text: text } = ask;
    if (state === "expired") return t("ask.expired");
    if (state === "withdrawn") return text || t("ask.withdrawn");
    if (!decision) return "";
    const words = { who: decision.by.label, at: formatClock(decision.at, locale.value) };
    if (decision.verdict === "deny") return t("ask.deniedBy", words);
    const isAnswer = ask.kind === "question" || ask.kind === "human";
    return isAnswer ? t("ask.answeredBy", words) : t("ask.allowedBy", words);
  }
  return { outcomeOf, at };
}
