/** Colours of terminals: one dark palette for both themes, because programs draw for dark ground. */
import type { ITheme } from "@xterm/xterm";

export const ANSI = [
  "#2b2d33",
  "#f0716b",
  "#6cc88f",
  "#e5b65c",
  "#6ea8fe",
  "#c792ea",
  "#5cc4cf",
  "#d3d5da",
  "#74777f",
  "#ff938d",
  "#8fe0ae",
  "#f5cf86",
  "#97c2ff",
  "#dcb3f5",
  "#86dde6",
  "#ffffff",
] as const;

export const FOREGROUND = "#dfe1e6";
export const BACKGROUND = "#0f1012";

export const theme: ITheme = {
  foreground: FOREGROUND,
  background: BACKGROUND,
  cursor: "#f0936c",
  cursorAccent: BACKGROUND,
  selectionBackground: "#3b5a87",
  scrollbarSliderBackground: "#ffffff22",
  scrollbarSliderHoverBackground: "#ffffff44",
  scrollbarSliderActiveBackground: "#ffffff55",
  overviewRulerBorder: "#00000000",
  black: ANSI[0],
  red: ANSI[1],
  green: ANSI[2],
  yellow: ANSI[3],
  blue: ANSI[4],
  magenta: ANSI[5],
  cyan: ANSI[6],
  white: ANSI[7],
  brightBlack: ANSI[8],
  brightRed: ANSI[9],
  brightGreen: ANSI[10],
  brightYellow: ANSI[11],
  brightBlue: ANSI[12],
  brightMagenta: ANSI[13],
  brightCyan: ANSI[14],
  brightWhite: ANSI[15],
};

/** The font of terminals and code; emoji have their own fallbacks. */
export const FONT_FAMILY =
  '"JetBrains Mono", "Nest Symbols", ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", "Noto Sans Mono", "Noto Color Emoji", "Apple Color Emoji", "Segoe UI Emoji", monospace';

/** Colour number of the 256-colour palette as CSS. */
export function paletteColour(index: number): string {
  const ansi = ANSI[index];
  if (ansi !== undefined) return ansi;
  if (index >= 232) {
    const grey = 8 + (index - 232) * 10;
    return `rgb(${grey},${grey},${grey})`;
  }
  const level = (value: number) => (value === 0 ? 0 : 55 + value * 40);
  const cube = index - 16;
  return `rgb(${level(Math.floor(cube / 36))},${level(Math.floor(cube / 6) % 6)},${level(cube % 6)})`;
}

/** Loads every face that a terminal draws with; a canvas does not ask for fonts again once it has drawn without them. */
export async function loadFonts(): Promise<void> {
  const faces = ['14px "JetBrains Mono"', 'bold 14px "JetBrains Mono"', 'italic 14px "JetBrains Mono"'];
  const loads = faces.map((face) => document.fonts.load(face, "W─"));
  await Promise.allSettled([...loads, document.fonts.load('14px "Nest Symbols"', "⎿⏵")]);
}
