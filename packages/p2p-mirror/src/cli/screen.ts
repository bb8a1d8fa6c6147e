import type { Output } from "./terminal.ts";

const HIDE_CURSOR = "\u001B[?25l";
const SHOW_CURSOR = "\u001B[?25h";
const CLEAR_ALL = "\u001B[2J\u001B[H";
const CLEAR_LINE = "\u001B[K";
const CLEAR_BELOW = "\u001B[J";
const up = (lines: number): string => (lines === 0 ? "\r" : `\u001B[${lines}A\r`);

/** Of a terminal that does not say how large it is. */
const COLUMNS = 80;
const ROWS = 24;

/** Text that is drawn over itself, on a terminal. `end` must be called: the terminal gets its cursor back. */
export interface Screen {
  draw(text: string): void;
  end(): void;
}

/** What does not fit is cut: a line that wraps, or one above the top, could not be drawn over. */
export function createScreen(output: Output): Screen {
  let drawn: { readonly lines: number; readonly columns: number; readonly rows: number } | undefined;
  return {
    draw: (text) => {
      const { columns, rows } = sizeOf(output.stream);
      const all = text.replace(/\n$/, "").split("\n");
      const shown = all.length < rows ? all : [...all.slice(0, Math.max(0, rows - 2)), "…"];
      let start = HIDE_CURSOR;
      // After a change of its size a terminal may have wrapped what stood there.
      if (drawn !== undefined)
        start = drawn.columns === columns && drawn.rows === rows ? up(drawn.lines) : CLEAR_ALL;
      const lines = shown.map((line) => `${line.slice(0, columns)}${CLEAR_LINE}\n`);
      // One write: half a picture does not flicker.
      output.write(`${start}${lines.join("")}${CLEAR_BELOW}`);
      drawn = { lines: lines.length, columns, rows };
    },
    end: () => {
      if (drawn !== undefined) output.write(SHOW_CURSOR);
    },
  };
}

function sizeOf(stream: NodeJS.WritableStream): { readonly columns: number; readonly rows: number } {
  const of = (key: "columns" | "rows", unknown: number): number => {
    const value: unknown = Reflect.get(stream, key);
    return typeof value === "number" && value > 0 ? value : unknown;
  };
  return { columns: of("columns", COLUMNS), rows: of("rows", ROWS) };
}
