import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readFile, readdir, rename, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { exec, tryExec } from "../exec.ts";
import { isCode, withLock } from "../lock.ts";
import type { GoSource } from "./catalog.ts";

const MODULES = path.join(import.meta.dirname, "../go");

/** Everything that decides what comes out, the Go release aside: a newer one is no reason to build for minutes again. */
const FLAGS = ["-p=1", "-mod=readonly", "-buildvcs=false", "-trimpath"];

/** On a free machine a containerd takes hardly more than a minute, all of Kubernetes ten. */
const BUILD_TIMEOUT_MS = 40 * 60_000;

export type Say = (line: string) => void;

/**
 * The folder with the binaries of a pinned Go module, built once per user and machine: the cache key is a hash of
 * go.mod, go.sum, flags and platform, so that fresh clones find it too. Throws where Go is missing or too old.
 */
export async function goBinaries(source: GoSource, say: Say): Promise<string> {
  const module = path.join(MODULES, source.module);
  const hash = createHash("sha256");
  const own = (await readdir(module)).filter((file) => file.endsWith(".go")).toSorted();
  for (const file of ["go.mod", "go.sum", ...own])
    hash.update(await readFile(path.join(module, file))).update("\0");
  hash.update(JSON.stringify([FLAGS, source, process.platform, process.arch]));
  const parent = path.join(cacheFolder(), source.module);
  const target = path.join(parent, hash.digest("hex").slice(0, 32));
  if (await isFilled(target)) return target;
  const make = async (): Promise<void> => {
    if (await isFilled(target)) return;
    // Before anybody is told to wait for minutes.
    await exec(["go", "version"]);
    say(`building ${source.module} from Go modules, once (minutes) …`);
    const begin = performance.now();
    await mkdir(parent, { recursive: true });
    const temp = await mkdtemp(path.join(parent, ".build-"));
    try {
      await build(source, module, temp);
      await rename(temp, target).catch((error: unknown) => {
        if (!isCode(error, "ENOTEMPTY") && !isCode(error, "EEXIST")) throw error;
      });
    } finally {
      await rm(temp, { recursive: true, force: true });
    }
    say(`built ${source.module} in ${((performance.now() - begin) / 1000).toFixed(0)} s`);
  };
  await withLock(`${target}.lock`, make, BUILD_TIMEOUT_MS);
  return target;
}

async function build(source: GoSource, module: string, output: string): Promise<void> {
  const env = { ...process.env, CGO_ENABLED: "0", GOTOOLCHAIN: "local", GOFLAGS: "", GOWORK: "off" };
  const flags = [...FLAGS, `-p=${source.parallel ?? 1}`, "-ldflags", source.ldflags, "-o", `${output}/`];
  // Politely: whoever builds this is about to do something else on the same cores.
  const nice =
    (await tryExec(["nice", "true"]).catch(() => undefined))?.code === 0 ? ["nice", "-n", "10"] : [];
  await exec([...nice, "go", "build", ...flags, ...source.packages], {
    cwd: module,
    env,
    timeoutMs: BUILD_TIMEOUT_MS,
  });
}

const isFilled = async (folder: string): Promise<boolean> =>
  (await readdir(folder).catch(() => [])).length > 0;

/** Of this user, for what takes minutes to make. */
export function cacheFolder(): string {
  const base = process.env["XDG_CACHE_HOME"];
  return path.join(
    base !== undefined && path.isAbsolute(base) ? base : path.join(os.homedir(), ".cache"),
    "p2p-mirror",
  );
}
