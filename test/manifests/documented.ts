/** Commands that the documentation gives, run as they stand there. */
import { readFile } from "node:fs/promises";
import path from "node:path";
import { exec, type ExecOptions } from "../rig/exec.ts";

const CHECKOUT = path.resolve(import.meta.dirname, "../..");

/** The first block in a language below a heading. */
export async function documentedBlock(file: string, heading: string, language: string): Promise<string> {
  const text = await readFile(path.join(CHECKOUT, file), "utf8");
  const below = text.slice(text.indexOf(`\n${heading}\n`));
  const block = new RegExp(`^\`\`\`${language}\\n([^]*?)^\`\`\`$`, "m").exec(below)?.[1];
  if (!text.includes(`\n${heading}\n`) || block === undefined)
    throw new TypeError(`${file} has no ${language} below ${heading}`);
  return block;
}

/** The first block of shell commands below a heading, by its lines. */
export async function documentedLines(file: string, heading: string): Promise<string[]> {
  return (await documentedBlock(file, heading, "sh")).split("\n").filter((line) => line !== "");
}

/** Not every machine has it. */
export const OPENSSL =
  "command -v openssl >&2 || openssl() { od -An -v -tx1 -N32 /dev/urandom | tr -d ' \\n'; }";

/** One shell for several steps: these variables and all functions of a step are there in the next. Gives what they say. */
export function shell(
  variables: readonly string[],
  options: ExecOptions,
): (lines: readonly string[]) => Promise<string> {
  let before = "";
  return async (lines) => {
    const keep = [...variables.map((name) => `declare -p ${name} >&3 2>/dev/null || true`), "declare -f >&3"];
    const script = ["exec 3>&1 >&2", before, "set -e -o pipefail", ...lines, ...keep].join("\n");
    const { stdout, stderr } = await exec(["bash", "-c", script], options);
    before = stdout;
    return stderr;
  };
}
