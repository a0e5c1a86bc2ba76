import { createPinia, setActivePinia } from "pinia";
import { afterEach, beforeEach, expect, it, vi } from "vitest";

import { askToNotify, iconWith } from "./alerts";

beforeEach(() => setActivePinia(createPinia()));
afterEach(() => vi.unstubAllGlobals());

it("puts the number of what waits on the tab's icon", () => {
  expect(iconWith(0)).toBe("/icon.svg");
  expect(decodeURIComponent(iconWith(7))).toContain(">7</text>");
  expect(decodeURIComponent(iconWith(250))).toContain(">99</text>");
});

it("says whether the browser lets it notify", async () => {
  vi.stubGlobal("Notification", undefined);
  expect(await askToNotify()).toBe("unsupported");
  for (const [answer, expected] of [
    ["granted", "granted"],
    ["denied", "denied"],
    ["default", "denied"],
  ]) {
    vi.stubGlobal("Notification", { requestPermission: () => Promise.resolve(answer) });
    expect(await askToNotify()).toBe(expected);
  }
});
