import { readFileSync } from "node:fs";
import { link, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { RigError } from "./errors.ts";
import { until } from "./until.ts";

export interface Lock {
  release(): Promise<void>;
}

/**
 * Takes the lock `file` for this process if it is free, or left behind by a process that is gone. Locks only keep
 * processes from doing the same work twice; what they make must be put in place by a rename all the same.
 */
export async function tryLock(file: string): Promise<Lock | undefined> {
  await mkdir(path.dirname(file), { recursive: true });
  // Written first and linked then: a lock that can be seen always names its owner.
  const own = `${file}.${process.pid}.${Math.random().toString(36).slice(2)}`;
  await writeFile(own, `${process.pid}\n`);
  try {
    await link(own, file);
    return { release: () => rm(file, { force: true }) };
  } catch (error) {
    if (!isCode(error, "EEXIST")) throw error;
    const owner = Number(await readFile(file, "utf8").catch(() => "0"));
    if (owner !== 0 && !isAlive(owner)) {
      // The rename lets one of several processes that see the dead owner win; the next round takes the lock anew.
      await rename(file, own).catch(() => undefined);
    }
    return undefined;
  } finally {
    await rm(own, { force: true });
  }
}

/** Runs `work` while holding the lock; waits for it up to `timeoutMs` (default 20 minutes: a Go build may be under way). */
export async function withLock<T>(file: string, work: () => Promise<T>, timeoutMs = 20 * 60_000): Promise<T> {
  // A folder that this user cannot write to stays that way: nothing to wait for.
  const attempt = (): Promise<Lock | RigError | undefined> =>
    tryLock(file).catch((cause: unknown) => {
      const why = cause instanceof Error ? cause.message : String(cause);
      return new RigError("COMMAND_FAILED", `no lock can be made: ${why}`, { cause });
    });
  const lock = await until(`lock ${file}`, attempt, { timeoutMs, everyMs: 100 });
  if (lock instanceof RigError) throw lock;
  try {
    return await work();
  } finally {
    await lock.release();
  }
}

/** Whether a process runs. One that has ended and was not waited for yet (a zombie) does not. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return isCode(error, "EPERM");
  }
  if (process.platform !== "linux") return true;
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(")") + 2));
  } catch {
    return false;
  }
}

export const isCode = (error: unknown, code: string): boolean =>
  error instanceof Error && "code" in error && error.code === code;
