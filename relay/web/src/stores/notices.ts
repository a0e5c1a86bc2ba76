/** Short messages about what just happened, with what can be done about it. */
import { defineStore } from "pinia";
import { ref } from "vue";

export interface NoticeAction {
  label: string;
  run: () => void;
}
export interface Notice {
  id: number;
  kind: "info" | "good" | "bad";
  text: string;
  actions: NoticeAction[];
}

/** Long enough to read a sentence twice; bad news stays until it is closed. */
const SHOWN_MS = 6_000;
/** More at once would hide the page. */
const MAX_NOTICES = 4;

export const useNotices = defineStore("notices", () => {
  const notices = ref<Notice[]>([]);
  let last = 0;

  function add(kind: Notice["kind"], text: string, actions: NoticeAction[] = []): number {
    const id = ++last;
    notices.value = [
      ...notices.value.filter((notice) => notice.text !== text).slice(1 - MAX_NOTICES),
      { id, kind, text, actions },
    ];
    if (kind !== "bad" && actions.length === 0) setTimeout(() => close(id), SHOWN_MS);
    return id;
  }
  function close(id: number): void {
    notices.value = notices.value.filter((notice) => notice.id !== id);
  }
  return { notices, add, close };
});
