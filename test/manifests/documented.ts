/** Commands that the documentation gives, run as they stand there. */
import { readFile } from "node:fs/promises";
import path from "node:path";
import { exec, type ExecOptions } from "../rig/exec.ts";

const DOCS = path.resolve(import.meta.dirname, "../../docs");

/** The first block of shell commands below a heading, by its lines. */
export async function documentedLines(file: string, heading: string): Promise<string[]> {
  const text = await readFile(path.join(DOCS, file), "utf8");
  const below = text.slice(text.indexOf(`\n${heading}\n`));
  const block = /^```sh\n([\s\S]*?)^```$/m.exec(below)?.[1];
  if (!text.includes(`\n${heading}\n`) || block === undefined)
    throw new TypeError(`docs/${file} has no commands below ${heading}`);
  return block.split("\n").filter((line) => line !== "");
}

/** One shell for several steps: these variables and all functions of a step are there in the next. */
export function shell(
  variables: readonly string[],
  options: ExecOptions,
): (lines: readonly string[]) => Promise<void> {
  let before = "";
  return async (lines) => {
    const keep = `declare -p ${variables.join(" ")} >&3 2>/dev/null || true\ndeclare -f >&3`;
    const script = ["exec 3>&1 >&2", before, "set -e -o pipefail", ...lines, keep].join("\n");
    before = (await exec(["bash", "-c", script], options)).stdout;
  };
}
