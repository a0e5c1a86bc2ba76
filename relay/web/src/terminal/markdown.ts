/** The little of Markdown that makes Claude's messages readable: code, bold, headings. Everything else stays text. */

export type Inline = { kind: "text" | "code" | "strong"; text: string };
export type Block = { kind: "code"; text: string } | { kind: "text" | "heading"; parts: Inline[] };

const FENCE = /^ {0,3}(`{3,}|~{3,})/;

/** Cuts a message into blocks. A fence that never ends goes to the end, as it does while the message is still coming. */
export function blocksOf(message: string): Block[] {
  const blocks: Block[] = [];
  let lines: string[] = [];
  let fence: string | null = null;
  const flush = () => {
    const text = lines.join("\n");
    lines = [];
    if (fence !== null) blocks.push({ kind: "code", text });
    else if (text.trim() !== "")
      blocks.push({ kind: "text", parts: inlineOf(text.replace(/^\n+|\n+$/g, "")) });
  };
  for (const line of message.split("\n")) {
    const mark = FENCE.exec(line)?.[1];
    const isEnd = fence !== null && mark?.startsWith(fence) && line.trim() === mark;
    if (fence === null ? mark !== undefined : isEnd) {
      flush();
      fence = fence === null ? (mark ?? null) : null;
      continue;
    }
    const heading = fence === null ? /^#{1,6} +(.+)$/.exec(line)?.[1] : undefined;
    if (heading === undefined) lines.push(line);
    else {
      flush();
      blocks.push({ kind: "heading", parts: inlineOf(heading) });
    }
  }
  if (fence !== null || lines.length > 0) flush();
  return blocks;
}

function inlineOf(text: string): Inline[] {
  const parts: Inline[] = [];
  let from = 0;
  for (const match of text.matchAll(/(`+)(?!`)([^\n]*?[^`\n])\1(?!`)|\*\*(?=\S)([^*\n]*[^*\s])\*\*/g)) {
    if (match.index > from) parts.push({ kind: "text", text: text.slice(from, match.index) });
    parts.push(
      match[2] === undefined
        ? { kind: "strong", text: match[3] ?? "" }
        : { kind: "code", text: match[2].trim() },
    );
    from = match.index + match[0].length;
  }
  if (from < text.length) parts.push({ kind: "text", text: text.slice(from) });
  return parts;
}
