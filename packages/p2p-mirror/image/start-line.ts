import { readFile } from "node:fs/promises";
import { join } from "node:path";

/** How the program is started in production. */
export interface StartLine {
  /** Flags of Node.js itself. */
  readonly flags: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

const MAIN = join(import.meta.dirname, "../src/main.ts");

/** As the first line of main.ts has it, the one place where it is written. */
export async function startLine(main = MAIN): Promise<StartLine> {
  const [first = ""] = (await readFile(main, "utf8")).split("\n", 1);
  const [, assignments, flags] = /^#!\/usr\/bin\/env -S ((?:\w+=\S+ )*)node((?: --\S+)*)$/.exec(first) ?? [];
  if (assignments === undefined || flags === undefined)
    throw new Error(`${main}: "${first}" starts no Node.js`);
  return {
    flags: words(flags),
    env: Object.fromEntries(words(assignments).map((word) => word.split("=", 2))),
  };
}

const words = (text: string): string[] => text.split(" ").filter((word) => word !== "");
