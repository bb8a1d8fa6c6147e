import { copyFile, mkdir, mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { bundle, PACKAGE } from "../../packages/p2p-mirror/image/bundle.ts";
import type { Drained } from "./drain.ts";

export type { Drained };

const run = promisify(execFile);
const CHECKOUT = join(import.meta.dirname, "../..");

/** The program as the container image has it, in a new folder: what is measured is what runs in production. */
export async function programOfImage(folder: string, checkout = CHECKOUT): Promise<string> {
  const home = join(folder, "program");
  await mkdir(home, { recursive: true });
  for (const [file, content] of (await bundle(checkout)).files) await writeFile(join(home, file), content);
  // It says its version, and that the files are modules.
  await copyFile(join(checkout, PACKAGE, "package.json"), join(folder, "package.json"));
  return join(home, "main.js");
}

/** GETs a URL from a process of its own and throws the body away. */
export async function drain(url: string, tlsFile?: string): Promise<Drained> {
  const args = [join(import.meta.dirname, "drain.ts"), url, ...(tlsFile === undefined ? [] : [tlsFile])];
  const { stdout } = await run(process.execPath, args);
  const drained = JSON.parse(stdout) as Drained;
  if (drained.status !== 200) throw new Error(`${url} answered ${drained.status}`);
  return drained;
}

/**
 * Makes so much memory resident, and free again: a file is written and removed. A virtual machine gives memory that it
 * does not use back to its host, and each page of a new file then costs a fault there, ten times the copy itself. On a
 * node the page cache is full and its pages go round.
 */
export async function residentMemory(bytes: number): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "bench-memory-"));
  const chunk = Buffer.alloc(8 * 1024 * 1024, 1);
  const file = await open(join(dir, "file"), "w");
  for (let written = 0; written < bytes; written += chunk.length) await file.write(chunk);
  await file.close();
  await rm(dir, { recursive: true });
}
