/** Members of the cluster that lie about pieces, from when they are told to until they are told to stop. */
import { readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Mirror } from "../rig/mirror.ts";

/**
 * `flips`: one wrong bit in each piece. `short`: half of what was announced, then the end of the connection. `long`:
 * announces and sends more than a piece has.
 */
export type Lie = "flips" | "short" | "long";

const fileIn = (dataDir: string): string => path.join(dataDir, "lie");
const toldIn = (dataDir: string): string => path.join(dataDir, "lies-told");

/** Flags of Node that make a mirror a liar on demand. */
export const liarFlags: readonly string[] = [`--import=${path.join(import.meta.dirname, "lying-member.ts")}`];

/** Where such a mirror looks for what it is to do. */
export const liarEnv = (dataDir: string): Readonly<Record<string, string>> => ({
  LIE_FILE: fileIn(dataDir),
  LIES_TOLD_FILE: toldIn(dataDir),
});

/** Undefined: it is honest again. */
export async function tell({ dataDir }: Mirror, lie: Lie | undefined): Promise<void> {
  if (lie === undefined) await rm(fileIn(dataDir), { force: true });
  else await writeFile(fileIn(dataDir), lie);
}

/** How many pieces it has lied about. */
export async function liesTold({ dataDir }: Mirror): Promise<number> {
  const told = await readFile(toldIn(dataDir), "utf8").catch(() => "");
  return told.split("\n").length - 1;
}
