import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { describe, expect, it } from "vitest";

import { en } from "./en";
import { fr } from "./fr";

type Tree = { [key: string]: string | Tree };
function leaves(tree: Tree, prefix = ""): [string, string][] {
  return Object.entries(tree).flatMap(([key, value]) =>
    typeof value === "string"
      ? [[prefix + key, value] as [string, string]]
      : leaves(value, `${prefix}${key}.`),
  );
}
const english = new Map(leaves(en));
const french = new Map(leaves(fr));
const root = join(import.meta.dirname, "..");
const sources = readdirSync(root, { recursive: true })
  .map(String)
  .filter((name) => /\.(vue|ts)$/.test(name) && !name.startsWith("i18n") && !name.endsWith(".test.ts"))
  .map((name) => readFileSync(join(root, name), "utf8"))
  .join("\n");

describe("texts", () => {
  it("has the same keys, parameters and plural forms in both languages", () => {
    expect([...french.keys()]).toEqual([...english.keys()]);
    for (const [key, text] of english) {
      const parts = (value: string) => [...value.matchAll(/\{(\w+)\}/g)].map((match) => match[1]).sort();
      const other = french.get(key) ?? "";
      expect(parts(other), key).toEqual(parts(text));
      expect(other.split(" | ").length, key).toBe(text.split(" | ").length);
    }
  });

  it("uses every text, and only texts that exist", () => {
    const sections = Object.keys(en).join("|");
    const used = new Set(
      [...sources.matchAll(new RegExp(`["'\`]((?:${sections})\\.\\w+)["'\`]`, "g"))].map((m) => m[1]),
    );
    const dynamic = [...sources.matchAll(new RegExp(`\`((?:${sections})\\.)\\$\\{`, "g"))].map(
      (m) => m[1] ?? "",
    );
    const asked = new Set([...sources.matchAll(/\bt\(\s*["'`](\w+\.\w+)["'`]/g)].map((m) => m[1]));
    for (const key of asked) expect(english.has(key ?? ""), `missing: ${key}`).toBe(true);
    const unused = [...english.keys()].filter(
      (key) => !used.has(key) && !dynamic.some((start) => key.startsWith(start)),
    );
    expect(unused).toEqual([]);
  });
});
