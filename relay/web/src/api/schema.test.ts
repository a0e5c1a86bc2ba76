// @vitest-environment node
import { readFileSync } from "node:fs";
import { resolve } from "node:path";

import openapiTS, { astToString, COMMENT_HEADER } from "openapi-typescript";
import { expect, it } from "vitest";

it("schema.ts is what openapi.json generates now (else: npm run gen)", async () => {
  const document = JSON.parse(readFileSync(resolve("../openapi.json"), "utf8")) as Parameters<
    typeof openapiTS
  >[0];
  const fresh = `${COMMENT_HEADER}${astToString(await openapiTS(document))}`;
  expect(readFileSync(resolve("src/api/schema.ts"), "utf8").trim()).toBe(fresh.trim());
});
