import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Drained } from "./drain.ts";

export type { Drained };

const run = promisify(execFile);
const CHECKOUT = join(import.meta.dirname, "../..");

/** Compiles the packages: what is measured is what runs in production. */
export async function build(): Promise<void> {
  await run(join(CHECKOUT, "node_modules/.bin/tsc"), ["-b", "tsconfig.build.json"], { cwd: CHECKOUT });
}

/** GETs a URL from a process of its own and throws the body away. */
export async function drain(url: string, tlsFile?: string): Promise<Drained> {
  const args = [join(import.meta.dirname, "drain.ts"), url, ...(tlsFile === undefined ? [] : [tlsFile])];
  const { stdout } = await run(process.execPath, args);
  const drained = JSON.parse(stdout) as Drained;
  if (drained.status !== 200) throw new Error(`${url} answered ${drained.status}`);
  return drained;
}
