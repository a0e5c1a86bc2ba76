/** Keys that work outside of fields and terminals. Two-key sequences start with `g`. */
import { onMounted, onUnmounted } from "vue";

/** Time for the second key. */
const SEQUENCE_MS = 1_200;

export type Shortcuts = Record<string, (event: KeyboardEvent) => void>;

/** True if keys belong to what has the focus. */
export function isTyping(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement &&
    (target.isContentEditable ||
      /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName) ||
      target.closest(".xterm") !== null)
  );
}

/** Registers keys like `?`, `j`, `g s`, `mod+k` (Ctrl or ⌘; also inside fields). */
export function useShortcuts(shortcuts: () => Shortcuts): void {
  let prefix: { key: string; at: number } | null = null;
  function onKey(event: KeyboardEvent): void {
    if (event.defaultPrevented || event.isComposing) return;
    const map = shortcuts();
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.ctrlKey || event.metaKey) {
      const isTerminal = event.target instanceof HTMLElement && event.target.closest(".xterm") !== null;
      // In a terminal Ctrl+K belongs to the program; ⌘K and Ctrl+Shift+K do not.
      if (isTerminal && event.ctrlKey && !event.shiftKey) return;
      const action = map[`mod+${key}`];
      if (action && !event.altKey) {
        event.preventDefault();
        action(event);
      }
      return;
    }
    if (event.altKey || isTyping(event.target)) return;
    if (document.querySelector('[role="dialog"][data-state="open"], [role="menu"][data-state="open"]'))
      return;
    const name = event.key === "?" ? "?" : event.shiftKey && event.key.length === 1 ? event.key : key;
    const isSecond = prefix !== null && Date.now() - prefix.at < SEQUENCE_MS;
    const action = isSecond ? map[`${prefix?.key} ${key}`] : map[name];
    prefix = null;
    if (action) {
      event.preventDefault();
      action(event);
    } else if (Object.keys(map).some((other) => other.startsWith(`${key} `))) {
      prefix = { key, at: Date.now() };
    }
  }
  onMounted(() => window.addEventListener("keydown", onKey));
  onUnmounted(() => window.removeEventListener("keydown", onKey));
}

/** j and k through everything marked `data-list-item` on the page, or in the list beside it; Enter is the item's own. */
export function moveInList(step: 1 | -1): void {
  const root = document.querySelector("[data-list-root]") ?? document.querySelector("main");
  const items = [...(root?.querySelectorAll<HTMLElement>("[data-list-item]") ?? [])];
  if (items.length === 0) return;
  const at = items.findIndex(
    (item) => item === document.activeElement || item.contains(document.activeElement),
  );
  const next =
    at < 0 ? (step > 0 ? 0 : items.length - 1) : Math.min(items.length - 1, Math.max(0, at + step));
  items[next]?.focus();
  items[next]?.scrollIntoView({ block: "nearest" });
}
