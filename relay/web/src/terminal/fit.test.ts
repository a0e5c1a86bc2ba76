import { describe, expect, it } from "vitest";

import { fontThatFits, sizeThatFits } from "./fit";

const measure = (font: number) => ({ width: font * 0.6, height: font * 1.3 });

describe("fitting", () => {
  it("counts whole cells and refuses a room without space", () => {
    expect(sizeThatFits({ width: 805, height: 401 }, { width: 8, height: 16 })).toEqual({
      cols: 100,
      rows: 25,
    });
    expect(sizeThatFits({ width: 10, height: 400 }, { width: 8, height: 16 })).toBeNull();
    expect(sizeThatFits({ width: 99_999, height: 99_999 }, { width: 8, height: 16 })).toEqual({
      cols: 500,
      rows: 300,
    });
  });

  it("finds the largest font at which another size fits", () => {
    const room = { width: 400, height: 800 };
    const font = fontThatFits(room, { cols: 120, rows: 40 }, 14, measure);
    expect(font).toBe(5.5);
    expect(measure(font).width * 120).toBeLessThanOrEqual(room.width);
    expect(measure(font + 0.25).width * 120).toBeGreaterThan(room.width);
    // Never larger than wanted, never smaller than allowed.
    expect(fontThatFits(room, { cols: 10, rows: 5 }, 14, measure)).toBe(14);
    expect(fontThatFits(room, { cols: 120, rows: 40 }, 14, measure, 11)).toBe(11);
    expect(fontThatFits(room, { cols: 500, rows: 300 }, 14, measure)).toBe(4);
  });
});
