/** What an ask asks, cut into what a person looks at. */
import type { ApprovalInfo } from "@/api/types";

import { type DiffLine, linesOfDiff, linesOfEdit } from "./diff";

export interface Fact {
  name: string;
  text: string;
}
/** What is shown of a tool's input; everything in the input is in one of these. */
export interface ActView {
  command: string | null;
  lines: DiffLine[];
  path: string | null;
  /** What Claude says that it is for. */
  purpose: string | null;
  facts: Fact[];
}
export interface Choice {
  label: string;
  description: string;
}
export interface AskedQuestion {
  question: string;
  header: string;
  isMulti: boolean;
  choices: Choice[];
}

type Fields = Record<string, unknown>;
const fieldsOf = (value: unknown): Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Fields) : {};
const textOf = (value: unknown): string | null => (typeof value === "string" ? value : null);

function editLines(input: Fields, used: Set<string>): DiffLine[] {
  const edits = Array.isArray(input.edits) ? input.edits.map(fieldsOf) : null;
  const isEdit = (edit: Fields) =>
    textOf(edit.old_string) !== null &&
    textOf(edit.new_string) !== null &&
    Object.keys(edit).every((key) => key === "old_string" || key === "new_string");
  if (edits && edits.length > 0 && edits.every(isEdit)) {
    used.add("edits");
    return edits.flatMap((edit) => linesOfEdit(String(edit.old_string), String(edit.new_string)));
  }
  const before = textOf(input.old_string);
  const after = textOf(input.new_string);
  if (before !== null && after !== null) {
    used.add("old_string").add("new_string");
    return linesOfEdit(before, after);
  }
  for (const key of ["content", "new_source"]) {
    const content = textOf(input[key]);
    if (content !== null) {
      used.add(key);
      return linesOfEdit("", content);
    }
  }
  return [];
}

/** What is shown of a tool's use. */
export function viewOf(ask: ApprovalInfo): ActView {
  const input = fieldsOf(ask.input);
  const used = new Set<string>();
  const take = (key: string): string | null => {
    const text = textOf(input[key]);
    if (text !== null) used.add(key);
    return text;
  };
  const isShell = ask.tool === "Bash" || ask.tool === "PowerShell";
  const command = isShell ? take("command") : null;
  const purpose = isShell ? take("description") : null;
  const isEdit = ["Edit", "MultiEdit", "Write", "NotebookEdit"].includes(ask.tool);
  const path = isEdit ? (take("file_path") ?? take("notebook_path")) : null;
  let lines = isEdit ? editLines(input, used) : [];
  if (ask.diff) lines = linesOfDiff(ask.diff);
  const facts = Object.entries(input)
    .filter(([name]) => !used.has(name))
    .map(([name, value]) => ({ name, text: textOf(value) ?? JSON.stringify(value, null, 2) }));
  if (ask.input !== null && Object.keys(input).length === 0 && typeof ask.input !== "object") {
    facts.push({ name: "input", text: String(ask.input) });
  }
  return { command, lines, path, purpose, facts };
}

/** The questions of AskUserQuestion and of `ask_human`. */
export function questionsOf(ask: ApprovalInfo): AskedQuestion[] {
  const input = fieldsOf(ask.input);
  const list = Array.isArray(input.questions) ? input.questions.map(fieldsOf) : [input];
  return list.map((one) => ({
    question: textOf(one.question) ?? textOf(one.text) ?? ask.summary,
    header: textOf(one.header) ?? "",
    isMulti: one.multiSelect === true || one.multi_select === true,
    choices: (Array.isArray(one.options) ? one.options : []).map((option: unknown) => {
      const fields = fieldsOf(option);
      return {
        label: textOf(option) ?? textOf(fields.label) ?? JSON.stringify(option),
        description: textOf(fields.description) ?? "",
      };
    }),
  }));
}

/** The text of a plan. */
export function planOf(ask: ApprovalInfo): string {
  return textOf(fieldsOf(ask.input).plan) ?? ask.summary;
}

/** One line for a list: the command or the question itself where there is one, else what the machine says. */
export function lineOf(ask: ApprovalInfo): string {
  if (ask.input === null) return ask.summary;
  if (ask.kind === "question" || ask.kind === "human") return questionsOf(ask)[0]?.question ?? ask.summary;
  return (ask.kind === "tool" ? viewOf(ask).command : null) ?? ask.summary;
}

/** What was said with an answer: the reason of a refusal, or the answers to questions. */
export function saidWith(ask: ApprovalInfo): string | null {
  const { reason, answers } = ask.decision ?? {};
  if (reason) return reason;
  if (typeof answers === "string") return answers;
  const texts = Object.values(fieldsOf(answers)).filter((text) => typeof text === "string");
  return texts.length > 0 ? texts.join("; ") : null;
}
