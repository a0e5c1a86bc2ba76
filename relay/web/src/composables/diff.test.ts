import { expect, it } from "vitest";

import { linesOfDiff, linesOfEdit } from "./diff";

it("reads hunks with their line numbers", () => {
  const diff =
    "--- a/x\n+++ b/x\n@@ -3,3 +3,4 @@ fn\n same\n-old\n+new\n+more\n last\n\\ No newline at end of file\n";
  expect(linesOfDiff(diff).map((line) => [line.kind, line.old, line.new, line.text])).toEqual([
    ["file", null, null, "--- a/x"],
    ["file", null, null, "+++ b/x"],
    ["hunk", null, null, "@@ -3,3 +3,4 @@ fn"],
    ["same", 3, 3, "same"],
    ["del", 4, null, "old"],
    ["add", null, 4, "new"],
    ["add", null, 5, "more"],
    ["same", 5, 6, "last"],
    ["file", null, null, "\\ No newline at end of file"],
  ]);
});

it("shows removed lines that look like headers as removed", () => {
  const lines = linesOfDiff("@@ -1 +1 @@\n--- a\n+++ b");
  expect(lines.map((line) => [line.kind, line.text])).toEqual([
    ["hunk", "@@ -1 +1 @@"],
    ["del", "-- a"],
    ["add", "++ b"],
  ]);
});

it("shows what an edit replaces", () => {
  expect(linesOfEdit("a\nb\n", "").map((line) => line.kind)).toEqual(["del", "del"]);
  expect(linesOfEdit("", "x").map((line) => line.text)).toEqual(["x"]);
});
