/** Why a session is in its state, in the reader's language. */
import { useI18n } from "vue-i18n";

import type { SessionInfo, StateWord } from "@/api/types";

/** Words that say no more than the state beside them. */
const SILENT = ["ended_on_request", "hibernated", "paused_on_request"] as const;
/** Words that say no more than the exit beside them. */
const EXITS: readonly StateWord[] = ["exit_code", "killed_by", "exit_lost"];
const isSilent = (word: StateWord) => (SILENT as readonly StateWord[]).includes(word);

/** The words that have a sentence of their own; the catalogues have them all. */
export type SpokenWord = Exclude<StateWord, "unknown" | (typeof SILENT)[number]>;

/** True if the reason only repeats how the process ended. */
export function isPlainExit(session: SessionInfo): boolean {
  const notes = session.state_notes ?? [];
  return notes.length > 0 && notes.every((note) => EXITS.includes(note.word));
}

/** Answers the sentence of a session; the machine's own English one for words that this page does not know. */
export function useReason(): (session: SessionInfo) => string {
  const { t, te } = useI18n();
  return (session) => {
    const notes = session.state_notes ?? [];
    if (notes.length === 0) return session.state_reason ?? "";
    const spoken = notes.filter((note) => !isSilent(note.word));
    if (!spoken.every((note) => te(`reason.${note.word}`))) return session.state_reason ?? "";
    return spoken.map((note) => t(`reason.${note.word}`, note.values ?? {})).join("; ");
  };
}
