/** Unified diffs, read for showing. What is no diff is shown as it is. */

export interface DiffLine {
  kind: "add" | "del" | "same" | "hunk" | "file";
  text: string;
  old: number | null;
  new: number | null;
}

const HUNK = /^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@/;

/** Lines of a unified diff with their numbers. */
export function linesOfDiff(diff: string): DiffLine[] {
  const lines: DiffLine[] = [];
  let [before, after] = [0, 0];
  let isInHunk = false;
  const all = diff.split("\n");
  if (all.at(-1) === "") all.pop();
  for (const line of all) {
    const hunk = HUNK.exec(line);
    if (hunk) {
      [before, after] = [Number(hunk[1]), Number(hunk[2])];
      isInHunk = true;
      lines.push({ kind: "hunk", text: line, old: null, new: null });
    } else if (!isInHunk || line.startsWith("\\")) {
      lines.push({ kind: "file", text: line, old: null, new: null });
    } else if (line.startsWith("+")) {
      lines.push({ kind: "add", text: line.slice(1), old: null, new: after++ });
    } else if (line.startsWith("-")) {
      lines.push({ kind: "del", text: line.slice(1), old: before++, new: null });
    } else {
      lines.push({ kind: "same", text: line.slice(1), old: before++, new: after++ });
    }
  }
  return lines;
}

/** What an edit says it replaces, where the machine made no diff: first all that goes, then all that comes. */
export function linesOfEdit(before: string, after: string): DiffLine[] {
  const cut = (text: string) => (text === "" ? [] : text.replace(/\n$/, "").split("\n"));
  return [
    ...cut(before).map((text) => ({ kind: "del" as const, text, old: null, new: null })),
    ...cut(after).map((text) => ({ kind: "add" as const, text, old: null, new: null })),
  ];
}
