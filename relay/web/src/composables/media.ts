/** What kind of screen this is. */
import { onScopeDispose, ref, type Ref } from "vue";

function useMedia(query: string): Ref<boolean> {
  const list = matchMedia(query);
  const matches = ref(list.matches);
  const update = () => (matches.value = list.matches);
  list.addEventListener("change", update);
  onScopeDispose(() => list.removeEventListener("change", update));
  return matches;
}

/** Narrow enough for the bottom bar and cards; the same bound as in the style sheets. */
export const usePhone = () => useMedia("(max-width: 760px)");
export const useDark = () => useMedia("(prefers-color-scheme: dark)");

/** True if the main pointer is a finger: such a viewer never sets the size of a terminal. */
export function isTouch(): boolean {
  return matchMedia("(pointer: coarse)").matches;
}
