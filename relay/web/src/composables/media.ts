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

/** Less than this is a browser's own bar and no keyboard. */
const KEYBOARD_PX = 80;

/**
 * Tells the style sheets how much of the page a phone's keyboard leaves visible, where the browser lays it over the page
 * instead of making the page smaller (iOS): `--visible-height` and `--visible-top`, absent while nothing is covered.
 */
export function followKeyboard(): void {
  const viewport = window.visualViewport;
  if (!viewport) return;
  const { style } = document.documentElement;
  const update = () => {
    // A page that is zoomed in shows a part of itself, too: that is no keyboard.
    const isCovered = viewport.scale < 1.01 && window.innerHeight - viewport.height > KEYBOARD_PX;
    if (isCovered) {
      style.setProperty("--visible-height", `${viewport.height}px`);
      style.setProperty("--visible-top", `${viewport.offsetTop}px`);
    } else {
      style.removeProperty("--visible-height");
      style.removeProperty("--visible-top");
    }
  };
  viewport.addEventListener("resize", update);
  viewport.addEventListener("scroll", update);
  onScopeDispose(() => {
    viewport.removeEventListener("resize", update);
    viewport.removeEventListener("scroll", update);
  });
  update();
}
