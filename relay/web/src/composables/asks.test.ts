import { expect, it } from "vitest";

import type { ApprovalInfo } from "@/api/types";

import { lineOf, questionsOf, saidWith, viewOf } from "./asks";

const ask = (tool: string, input: unknown, more: object = {}) =>
  ({ kind: "tool", tool, input, summary: "summary", is_brief: false, ...more }) as unknown as ApprovalInfo;

it("shows everything that is in the input, in one place or another", () => {
  const bash = viewOf(
    ask("Bash", { command: "ls\nrm x", description: "look", run_in_background: true, timeout: 5 }),
  );
  expect([bash.command, bash.purpose]).toEqual(["ls\nrm x", "look"]);
  expect(bash.facts).toEqual([
    { name: "run_in_background", text: "true" },
    { name: "timeout", text: "5" },
  ]);
  const edit = viewOf(
    ask("Edit", { file_path: "/a", old_string: "x", new_string: "y\nz", replace_all: true }),
  );
  expect([edit.path, edit.lines.map((line) => `${line.kind} ${line.text}`)]).toEqual([
    "/a",
    ["del x", "add y", "add z"],
  ]);
  expect(edit.facts).toEqual([{ name: "replace_all", text: "true" }]);
  const multi = viewOf(
    ask("MultiEdit", { file_path: "/a", edits: [{ old_string: "x", new_string: "y", replace_all: true }] }),
  );
  expect(multi.lines).toEqual([]);
  expect(multi.facts[0]?.text).toContain("replace_all");
  expect(viewOf(ask("Write", { file_path: "/a", content: "new\n" })).lines).toHaveLength(1);
  const other = viewOf(ask("mcp__x__y", { command: "not a shell", deep: { a: 1 } }));
  expect(other.command).toBeNull();
  expect(other.facts.map((fact) => fact.name)).toEqual(["command", "deep"]);
  expect(viewOf(ask("X", "text")).facts).toEqual([{ name: "input", text: "text" }]);
  expect(lineOf(ask("Read", {}))).toBe("summary");
});

it("reads the questions of both kinds", () => {
  const input = {
    questions: [
      {
        question: "Which?",
        header: "H",
        multiSelect: true,
        options: [{ label: "A", description: "a" }, "B"],
      },
    ],
  };
  expect(questionsOf(ask("AskUserQuestion", input, { kind: "question" }))).toEqual([
    {
      question: "Which?",
      header: "H",
      isMulti: true,
      choices: [
        { label: "A", description: "a" },
        { label: "B", description: "" },
      ],
    },
  ]);
  const human = questionsOf(ask("ask_human", { question: "Go?", options: ["yes"] }, { kind: "human" }));
  expect([human[0]?.question, human[0]?.choices[0]?.label]).toEqual(["Go?", "yes"]);
});

it("names an ask by what it asks, and an answer by what was said", () => {
  expect(lineOf(ask("Bash", { command: "ls" }))).toBe("ls");
  expect(lineOf(ask("Bash", null))).toBe("summary");
  expect(lineOf(ask("ask_human", { question: "Go?" }, { kind: "human" }))).toBe("Go?");
  const said = (decision: object) => saidWith(ask("X", {}, { decision }));
  expect(said({ reason: "no" })).toBe("no");
  expect(said({ answers: "yes" })).toBe("yes");
  expect(said({ answers: { "Which?": "A", "Why?": "B" } })).toBe("A; B");
  expect([said({ reason: null, answers: null }), saidWith(ask("X", {}))]).toEqual([null, null]);
});
