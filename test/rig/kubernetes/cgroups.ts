import { mkdir, readFile, readdir, rmdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { MissingError } from "../errors.ts";
import { isAlive, isCode } from "../lock.ts";
import { until } from "../until.ts";

/** A cgroup in each hierarchy of cgroup v1, in which a machine's processes live. */
export interface Cgroups {
  /** Whoever writes 0 to each of them is in. */
  readonly procsFiles: readonly string[];
  /** Removes what the machine made below; its processes must be gone. */
  clear(): Promise<void>;
  remove(): Promise<void>;
}

const ROOT = "/sys/fs/cgroup";

/** Names start with this and the pid, so that what a crash left behind can be told and removed. */
const OWNED = /^p2pm\.(\d+)\./;

/** Of the processors, where 1,024 is one process: a machine has some dozens. */
const SHARES = "4096";

let counter = 0;

/** Throws MissingError PRIVILEGE_MISSING where there is no cgroup v1 that can be written to. */
export async function probeCgroups(): Promise<void> {
  try {
    const cgroups = await createCgroups("probe");
    await cgroups.remove();
  } catch (error) {
    if (error instanceof MissingError) throw error;
    throw missing(error instanceof Error ? error.message : String(error));
  }
}

const missing = (reason: string): MissingError =>
  new MissingError(
    "PRIVILEGE_MISSING",
    "cgroups of machines",
    reason,
    "run as root on Linux with the hierarchies of cgroup v1 below /sys/fs/cgroup",
  );

export async function createCgroups(what: string): Promise<Cgroups> {
  const roots = await hierarchies();
  if (roots.length === 0) throw missing("this machine has no cgroup v1");
  await removeLeftOvers(roots);
  const name = `p2pm.${process.pid}.${++counter}.${what}`;
  const folders = roots.map((root) => path.join(root, name));
  for (const folder of folders) {
    await mkdir(folder);
    const controllers = path.basename(path.dirname(folder)).split(",");
    if (controllers.includes("cpuset")) await inheritCpus(folder);
    if (controllers.includes("cpu")) await writeFile(path.join(folder, "cpu.shares"), SHARES);
  }
  const clear = async (): Promise<void> => {
    for (const folder of folders) {
      for (const below of await subfolders(folder)) await removeTree(below);
    }
  };
  return {
    procsFiles: folders.map((folder) => path.join(folder, "cgroup.procs")),
    clear,
    async remove() {
      for (const folder of folders) await removeTree(folder);
    },
  };
}

/** The hierarchies this process is in; that of cgroup v2 has no name there. */
async function hierarchies(): Promise<string[]> {
  const text = await readFile("/proc/self/cgroup", "utf8").catch(() => "");
  return text.split("\n").flatMap((line) => {
    const controllers = line.split(":")[1] ?? "";
    return controllers === "" ? [] : [path.join(ROOT, controllers.replace(/^name=/, ""))];
  });
}

/** A new cpuset is empty, and takes no process before it has processors and memory. */
async function inheritCpus(folder: string): Promise<void> {
  for (const file of ["cpuset.cpus", "cpuset.mems"]) {
    await writeFile(path.join(folder, file), await readFile(path.join(folder, "..", file)));
  }
}

async function removeLeftOvers(roots: readonly string[]): Promise<void> {
  for (const root of roots) {
    for (const folder of await subfolders(root)) {
      const owner = OWNED.exec(path.basename(folder))?.[1];
      if (owner === undefined || isAlive(Number(owner))) continue;
      // Several processes may be at this at once.
      await removeTree(folder).catch(() => undefined);
    }
  }
}

async function removeTree(folder: string): Promise<void> {
  for (const below of await subfolders(folder)) await removeTree(below);
  // The last process that was killed may need a moment to be gone.
  await until(`cgroup ${folder} is empty`, () => rmdir(folder).then(() => true, isGone));
}

function isGone(error: unknown): boolean {
  if (isCode(error, "ENOENT")) return true;
  throw error;
}

async function subfolders(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isDirectory()).map((entry) => path.join(folder, entry.name));
}
