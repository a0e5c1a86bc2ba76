/**
 * Reads the `stream-json` lines of a headless session into messages that people can read. Unknown lines are kept
 * as they are: a newer Claude Code must not make things disappear.
 */

export type ChatItem =
  | { kind: "started"; model: string }
  | { kind: "user"; text: string }
  | { kind: "claude"; text: string }
  | { kind: "tool"; name: string; input: string }
  | { kind: "tool_result"; text: string; isError: boolean }
  | { kind: "ask"; tool: string; input: string }
  | { kind: "done"; durationMs: number | null; costUsd: number | null; isError: boolean; text: string }
  | { kind: "other"; text: string };

/** Longest line that is kept while it is incomplete: the transcript's own limit is far below. */
const MAX_LINE_CHARS = 8 * 1024 * 1024;
/** Lines that say nothing to a person. */
const SILENT = new Set(["control_response", "keep_alive", "rate_limit_event", "stream_event"]);

/** Cuts bytes into lines, whole characters only. */
export class LineReader {
  #decoder = new TextDecoder();
  #rest = "";

  push(bytes: Uint8Array): string[] {
    this.#rest += this.#decoder.decode(bytes, { stream: true });
    const lines = this.#rest.split(/\r?\n/);
    this.#rest = lines.pop() ?? "";
    if (this.#rest.length > MAX_LINE_CHARS) this.#rest = "";
    return lines;
  }

  reset(): void {
    this.#decoder = new TextDecoder();
    this.#rest = "";
  }
}

type Json = Record<string, unknown>;
const isRecord = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const text = (value: unknown) =>
  typeof value === "string" ? value : value === undefined ? "" : JSON.stringify(value, null, 2);

/** The messages in one line; none for a line that says nothing to a person. */
export function readLine(line: string): ChatItem[] {
  if (line.trim() === "") return [];
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch {
    return [{ kind: "other", text: line }];
  }
  if (!isRecord(json)) return [{ kind: "other", text: line }];
  const type = String(json.type);
  if (SILENT.has(type)) return [];
  switch (type) {
    case "system":
      return json.subtype === "init" ? [{ kind: "started", model: String(json.model ?? "") }] : [];
    case "user":
    case "assistant":
      return readContent(type, isRecord(json.message) ? json.message.content : undefined);
    case "control_request": {
      const request = isRecord(json.request) ? json.request : {};
      if (request.subtype !== "can_use_tool") return [];
      return [{ kind: "ask", tool: String(request.tool_name), input: describe(request.input) }];
    }
    case "result":
      return [
        {
          kind: "done",
          durationMs: typeof json.duration_ms === "number" ? json.duration_ms : null,
          costUsd: typeof json.total_cost_usd === "number" ? json.total_cost_usd : null,
          isError: json.is_error === true,
          text: json.is_error === true ? text(json.result) : "",
        },
      ];
    default:
      return [{ kind: "other", text: line }];
  }
}

function readContent(role: "user" | "assistant", content: unknown): ChatItem[] {
  const speaker = role === "user" ? "user" : "claude";
  if (typeof content === "string") return content ? [{ kind: speaker, text: content }] : [];
  if (!Array.isArray(content)) return [];
  return content.filter(isRecord).flatMap((part): ChatItem[] => {
    switch (part.type) {
      case "text":
        return [{ kind: speaker, text: text(part.text) }];
      case "tool_use":
        return [{ kind: "tool", name: String(part.name), input: describe(part.input) }];
      case "tool_result":
        return [{ kind: "tool_result", text: resultText(part.content), isError: part.is_error === true }];
      default:
        return [];
    }
  });
}

function resultText(content: unknown): string {
  if (!Array.isArray(content)) return text(content);
  return content.map((part) => (isRecord(part) && part.type === "text" ? text(part.text) : "")).join("\n");
}

/** The one thing of a tool's input that a person looks for, else all of it. */
function describe(input: unknown): string {
  if (!isRecord(input)) return text(input);
  for (const key of ["command", "file_path", "pattern", "url", "query", "prompt"]) {
    if (typeof input[key] === "string") return input[key];
  }
  return JSON.stringify(input, null, 2);
}
