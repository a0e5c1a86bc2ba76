import { describe, expect, it } from "vitest";

import { blocksOf } from "./markdown";

describe("messages", () => {
  it("have code, bold and headings, and otherwise stay as they are", () => {
    expect(
      blocksOf("# Done\n\nAll of **it**: `a **b**` and 2 ** 3 ** 4\n- one\n```sh\nls *\n```\nend"),
    ).toEqual([
      { kind: "heading", parts: [{ kind: "text", text: "Done" }] },
      {
        kind: "text",
        parts: [
          { kind: "text", text: "All of " },
          { kind: "strong", text: "it" },
          { kind: "text", text: ": " },
          { kind: "code", text: "a **b**" },
          { kind: "text", text: " and 2 ** 3 ** 4\n- one" },
        ],
      },
      { kind: "code", text: "ls *" },
      { kind: "text", parts: [{ kind: "text", text: "end" }] },
    ]);
  });

  it("may end inside a fence, and fences may hold fences", () => {
    expect(blocksOf("````\n```\nx")).toEqual([{ kind: "code", text: "```\nx" }]);
    expect(blocksOf("")).toEqual([]);
    expect(blocksOf("```")).toEqual([{ kind: "code", text: "" }]);
  });

  it("never takes long over hostile text", () => {
    const started = performance.now();
    blocksOf("`".repeat(50_000));
    blocksOf("**a".repeat(20_000));
    blocksOf("` ".repeat(20_000));
    expect(performance.now() - started).toBeLessThan(1_000);
  });
});
