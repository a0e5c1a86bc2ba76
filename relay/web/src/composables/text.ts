/** Short forms of long things. */

/** The last two parts of a path, as sessions show it. */
export function shortPath(path: string, home?: string): string {
  const tidy = home && (path === home || path.startsWith(`${home}/`)) ? `~${path.slice(home.length)}` : path;
  const parts = tidy.split("/").filter(Boolean);
  if (parts.length <= 2) return tidy || "/";
  return `…/${parts.slice(-2).join("/")}`;
}

/** Copies text; works on plain http too, where the clipboard interface is missing. */
export async function copyText(text: string): Promise<boolean> {
  try {
    if (navigator.clipboard) {
      await navigator.clipboard.writeText(text);
      return true;
    }
  } catch {
    // Refused: fall back to the older way.
  }
  const area = document.createElement("textarea");
  area.value = text;
  area.style.position = "fixed";
  area.style.opacity = "0";
  document.body.append(area);
  const focused = document.activeElement;
  area.select();
  let isCopied: boolean;
  try {
    isCopied = document.execCommand("copy");
  } catch {
    isCopied = false;
  }
  area.remove();
  if (focused instanceof HTMLElement) focused.focus();
  return isCopied;
}

/** Splits a line of arguments as a shell would, with quotes and backslashes, and without any expansion. */
export function splitArgs(line: string): string[] | null {
  const args: string[] = [];
  let current = "";
  let isOpen = false;
  let quote: string | null = null;
  for (let index = 0; index < line.length; index++) {
    const char = line.charAt(index);
    if (quote) {
      if (char === quote) quote = null;
      else if (char === "\\" && quote === '"' && /["\\]/.test(line.charAt(index + 1)))
        current += line.charAt(++index);
      else current += char;
    } else if (char === "'" || char === '"') {
      quote = char;
      isOpen = true;
    } else if (char === "\\" && index + 1 < line.length) {
      current += line.charAt(++index);
      isOpen = true;
    } else if (/\s/.test(char)) {
      if (isOpen) args.push(current);
      current = "";
      isOpen = false;
    } else {
      current += char;
      isOpen = true;
    }
  }
  if (quote) return null;
  if (isOpen) args.push(current);
  return args;
}
