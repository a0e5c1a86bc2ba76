/**
 * Which size fits a room, and which font makes a given size fit: the terminal keeps the size of its session, and the
 * page adapts the font instead of resizing somebody else's screen.
 */
import type { TermSize } from "@/api/types";
import { clampSize } from "@/wire/frame";

export interface Cell {
  width: number;
  height: number;
}
export interface Room {
  width: number;
  height: number;
}
/** Cell size in CSS pixels at a font size. */
export type Measure = (fontSize: number) => Cell;

/** Below this nothing can be recognised at all. */
export const SMALLEST_FONT = 4;
const STEP = 0.25;

/** Columns and rows that fit at this font size. */
export function sizeThatFits(room: Room, cell: Cell): TermSize | null {
  if (cell.width <= 0 || cell.height <= 0 || room.width < cell.width * 2 || room.height < cell.height * 2) {
    return null;
  }
  return clampSize(Math.floor(room.width / cell.width), Math.floor(room.height / cell.height));
}

/** The largest font size, at most `wanted` and at least `least`, at which `size` fits into the room. */
export function fontThatFits(
  room: Room,
  size: TermSize,
  wanted: number,
  measure: Measure,
  least = SMALLEST_FONT,
): number {
  for (let font = wanted; font > least; font -= STEP) {
    const cell = measure(font);
    if (cell.width * size.cols <= room.width && cell.height * size.rows <= room.height) return font;
  }
  return Math.min(wanted, least);
}

/** Measures as xterm.js does: its WebGL renderer rounds cells to whole device pixels. */
export function measureCell(fontFamily: string, isWholePixels: boolean): Measure {
  const context = document.createElement("canvas").getContext("2d");
  const cache = new Map<number, Cell>();
  return (fontSize) => {
    const known = cache.get(fontSize);
    if (known) return known;
    const ratio = window.devicePixelRatio || 1;
    if (!context) return { width: fontSize * 0.6, height: fontSize * 1.2 };
    context.font = `${fontSize}px ${fontFamily}`;
    const metrics = context.measureText("W");
    const rawHeight = metrics.fontBoundingBoxAscent + metrics.fontBoundingBoxDescent;
    const cell = {
      width: isWholePixels ? Math.floor(metrics.width * ratio) / ratio : metrics.width,
      height: Math.ceil(rawHeight * ratio) / ratio,
    };
    cache.set(fontSize, cell);
    return cell;
  };
}
