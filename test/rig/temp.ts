import { mkdtemp, readdir, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { isAlive } from "./lock.ts";

const PREFIX = "p2pm";

/**
 * A temporary folder whose name tells its owner, so that gigabytes left by a test that was killed go with the next run.
 * Short, since Unix sockets lie in it (107 bytes at most).
 */
export async function tempFolder(what: string): Promise<string> {
  await removeLeftOvers();
  return mkdtemp(path.join(os.tmpdir(), `${PREFIX}-${what}-${process.pid}-`));
}

async function removeLeftOvers(): Promise<void> {
  for (const name of await readdir(os.tmpdir())) {
    const owner = /^p2pm-[a-z]+-(\d+)-\w{6}$/.exec(name)?.[1];
    if (owner === undefined || isAlive(Number(owner))) continue;
    // Another process may be removing the same.
    await rm(path.join(os.tmpdir(), name), { recursive: true, force: true }).catch(() => undefined);
  }
}
