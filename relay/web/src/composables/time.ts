/** Times as people read them: relative, short, with the exact time behind them. */
import { onScopeDispose, ref, type Ref } from "vue";

const now = ref(Date.now());
let users = 0;
let ticker: ReturnType<typeof setInterval> | undefined;

/** A clock that ticks each second while somebody looks at it. */
export function useNow(): Ref<number> {
  if (users++ === 0) {
    now.value = Date.now();
    ticker = setInterval(() => (now.value = Date.now()), 1_000);
  }
  onScopeDispose(() => {
    if (--users === 0) clearInterval(ticker);
  });
  return now;
}

const UNITS: [number, "d" | "h" | "m" | "s"][] = [
  [86_400, "d"],
  [3_600, "h"],
  [60, "m"],
  [1, "s"],
];

/** "2 m 10 s": at most two units, never negative. The units are those of the SI where it has them, in every language but days. */
export function formatDuration(ms: number, locale = "en"): string {
  let seconds = Math.max(0, Math.floor(ms / 1_000));
  const parts: string[] = [];
  for (const [size, unit] of UNITS) {
    const count = Math.floor(seconds / size);
    if (count > 0 || (unit === "s" && parts.length === 0)) {
      parts.push(`${count}\u00a0${unit === "d" && locale === "fr" ? "j" : unit === "m" ? "m" : unit}`);
    }
    seconds -= count * size;
    if (parts.length === 2 || (parts.length === 1 && count === 0)) break;
  }
  return parts.join(" ");
}

/** "2:03" or "1:02:03": a place in a recording. */
export function formatPosition(ms: number): string {
  const seconds = Math.floor(Math.max(0, ms) / 1_000);
  const two = (value: number) => String(value).padStart(2, "0");
  const [h, m, s] = [Math.floor(seconds / 3_600), Math.floor(seconds / 60) % 60, seconds % 60];
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** Exact time in the reader's own format and zone. */
export function formatExact(ms: number, locale: string): string {
  return new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium" }).format(ms);
}

/** "14:03", with the day if it is not today. */
export function formatClock(ms: number, locale: string, at = Date.now()): string {
  const isToday = new Date(ms).toDateString() === new Date(at).toDateString();
  return new Intl.DateTimeFormat(
    locale,
    isToday
      ? { hour: "2-digit", minute: "2-digit" }
      : { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" },
  ).format(ms);
}

const SIZES = ["B", "KiB", "MiB", "GiB", "TiB"];

/** "1.4 GiB". */
export function formatBytes(bytes: number, locale = "en"): string {
  let value = Math.max(0, bytes);
  let index = 0;
  while (value >= 1024 && index < SIZES.length - 1) {
    value /= 1024;
    index++;
  }
  const digits = index === 0 || value >= 100 ? 0 : 1;
  return `${new Intl.NumberFormat(locale, { maximumFractionDigits: digits }).format(value)}\u00a0${SIZES[index]}`;
}
