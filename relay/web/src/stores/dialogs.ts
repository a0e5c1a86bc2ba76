/** Questions to the person, answered by a promise, so that any code can ask. */
import { defineStore } from "pinia";
import { ref } from "vue";

export interface Question {
  title: string;
  text?: string;
  /** Shown in monospace below the text. */
  code?: string;
  confirm: string;
  isDangerous?: boolean;
  /** Present: asks for a text. */
  input?: { label: string; value: string; check?: (value: string) => string | null };
}

export const useDialogs = defineStore("dialogs", () => {
  const question = ref<Question | null>(null);
  let answer: ((value: string | null) => void) | null = null;

  function ask(next: Question): Promise<string | null> {
    answer?.(null);
    question.value = next;
    return new Promise((resolve) => (answer = resolve));
  }
  /** True if the person said yes. */
  async function confirm(next: Omit<Question, "input">): Promise<boolean> {
    return (await ask(next)) !== null;
  }
  function settle(value: string | null): void {
    question.value = null;
    answer?.(value);
    answer = null;
  }
  return { question, ask, confirm, settle };
});
