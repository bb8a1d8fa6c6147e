import { randomUUID } from "node:crypto";
import { mkdir, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { codeOf, ConfigError, isDiskFull } from "@p2p-mirror/shared";

const FIXES: Readonly<Record<string, string>> = {
  EEXIST: "a file is there; name a directory",
  ENOTDIR: "part of the path is a file; name a directory",
  EACCES: "this user may not write there; make it writable, or name another directory",
  EPERM: "this user may not write there; make it writable, or name another directory",
  EROFS: "the file system is read-only; name a directory on another one",
};

/**
 * Makes the data directory and writes to it, before anything else begins. A full disk is passed over: what is held can be
 * served all the same, and the rest goes on without being stored.
 * @throws ConfigError when it cannot be used
 */
export async function prepareDataDir(dir: string): Promise<void> {
  const probe = join(dir, `.probe-${randomUUID()}`);
  try {
    await makeDir(dir);
    await writeFile(probe, "p2p-mirror", { flag: "wx" });
    await rm(probe);
  } catch (error) {
    await rm(probe, { force: true }).catch(() => undefined);
    if (isDiskFull(error)) return;
    const code = codeOf(error);
    const fix = FIXES[code] ?? "nothing can be written there; name another directory";
    throw new ConfigError("data-dir", dir, fix, { cause: error });
  }
}

/** Not `recursive`: where a directory cannot be made although its parent is there (/proc), Node would try for ever. */
async function makeDir(dir: string): Promise<void> {
  try {
    await mkdir(dir);
  } catch (error) {
    if ((await stat(dir).catch(() => undefined))?.isDirectory() === true) return;
    const parent = dirname(dir);
    const orphan = codeOf(error) === "ENOENT";
    if (!orphan || parent === dir || (await stat(parent).catch(() => undefined)) !== undefined) throw error;
    await makeDir(parent);
    await mkdir(dir);
  }
}
