import { readFileSync } from "node:fs";
import { join } from "node:path";

import { describe, expect, it } from "vitest";

import { LineReader, readLine } from "./conversation";

describe("a conversation", () => {
  it("cuts lines at any byte without breaking characters", () => {
    const whole = new TextEncoder().encode('{"a":"é漢🎉"}\n{"b":1}\r\nrest');
    for (let cut = 0; cut <= whole.length; cut++) {
      const reader = new LineReader();
      const lines = [...reader.push(whole.subarray(0, cut)), ...reader.push(whole.subarray(cut))];
      expect(lines).toEqual(['{"a":"é漢🎉"}', '{"b":1}']);
    }
  });

  it("reads a recorded stream of Claude Code", () => {
    const path = join(import.meta.dirname, "../../../../tests/fixtures/samples/stream_json_control.jsonl");
    const items = readFileSync(path, "utf8")
      .trim()
      .split("\n")
      .flatMap((line) => readLine(JSON.stringify((JSON.parse(line) as { msg: unknown }).msg)));
    expect(items.some((item) => item.kind === "other")).toBe(false);
    expect(items[0]).toEqual({ kind: "user", text: "do the thing" });
    expect(items).toContainEqual({ kind: "claude", text: "I'll look at the working directory first." });
    expect(items).toContainEqual({ kind: "ask", tool: "Bash", input: "touch bash-ran.txt && ls -la" });
    expect(items).toContainEqual({ kind: "tool_result", text: "denied by supervisor", isError: true });
    expect(items.at(-1)).toMatchObject({ kind: "done", durationMs: 875, costUsd: 0.1255435, isError: false });
  });

  it("keeps what it does not know", () => {
    expect(readLine('{"type":"from_the_future","x":1}')).toEqual([
      { kind: "other", text: '{"type":"from_the_future","x":1}' },
    ]);
    expect(readLine("not json")).toEqual([{ kind: "other", text: "not json" }]);
    expect(readLine("[1]")).toEqual([{ kind: "other", text: "[1]" }]);
    expect(readLine("")).toEqual([]);
    for (const odd of [
      '{"type":"user"}',
      '{"type":"assistant","message":{"content":[1,null,{"type":"x"}]}}',
    ]) {
      expect(readLine(odd)).toEqual([]);
    }
  });
});
