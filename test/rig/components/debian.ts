import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { exec, tryExec } from "../exec.ts";
import { withLock } from "../lock.ts";
import { type AptMirror, mirrorOf } from "./apt-sources.ts";

/**
 * A private apt: its own lists, status and cache in a folder, so that packages of any suite can be downloaded without
 * touching the system, without root, and without `apt-get update` having been run on it.
 */
export interface PrivateApt {
  /** Downloads packages (a name, or `name=version`; not what they depend on) and unpacks them side by side into `folder`. */
  unpack(packages: readonly string[], folder: string): Promise<void>;
  /** The newest version of each package in the suite; packages that it does not have are left out. */
  versions(packages: readonly string[]): Promise<ReadonlyMap<string, string>>;
}

/** Lists older than this are fetched again: suites that move drop the files of old versions from the pool. */
const LIST_AGE_MS = 12 * 60 * 60_000;

export interface System {
  /** Ubuntu has none of Debian's suites, only its own: there the version that it has must do. */
  readonly kind: "debian" | "ubuntu";
  readonly codename: string;
}

/** The system if apt and dpkg are there, otherwise undefined. */
export async function debianSystem(): Promise<System | undefined> {
  const release = await readFile("/etc/os-release", "utf8").catch(() => "");
  const codename = /^VERSION_CODENAME="?([a-z]+)/m.exec(release)?.[1] ?? "";
  if (/^ID(_LIKE)?=.*ubuntu/m.test(release)) return { kind: "ubuntu", codename };
  return /^ID(_LIKE)?=.*debian/m.test(release) ? { kind: "debian", codename } : undefined;
}

/** Lines of a sources.list for packages of `suite`. */
export function sourceLines(system: System, suite: string, mirror: AptMirror): string {
  const line = (of: string, parts: string): string => `deb ${mirror.options}${mirror.uri} ${of} ${parts}\n`;
  if (system.kind === "debian") return line(suite, "main");
  const { codename } = system;
  return [codename, `${codename}-updates`].map((own) => line(own, "main universe")).join("");
}

/** @param folder of the checkout; everything stays in it. */
export async function privateApt(folder: string, system: System, suite: string): Promise<PrivateApt> {
  const base = path.join(folder, "apt", suite);
  const options = Object.entries({
    "Dir::Etc::sourcelist": path.join(base, "sources.list"),
    "Dir::Etc::sourceparts": path.join(base, "sources.list.d"),
    "Dir::Etc::preferences": "/dev/null",
    "Dir::Etc::preferencesparts": "/nonexistent",
    "Dir::State::lists": path.join(base, "lists"),
    "Dir::State::status": path.join(base, "status"),
    "Dir::Cache": path.join(base, "cache"),
    "Acquire::Languages": "none",
    "Acquire::Retries": "2",
    // Downloads run as the caller: apt's own user cannot write into a checkout.
    "APT::Sandbox::User": "root",
  }).flatMap(([name, value]) => ["-o", `${name}=${value}`]);
  const lock = path.join(folder, `apt-${suite}.lock`);
  const source = sourceLines(system, suite, await mirrorOf());
  await withLock(lock, () => update(base, source, options, LIST_AGE_MS));

  return {
    async unpack(packages, target) {
      const debs = path.join(target, ".debs");
      await mkdir(debs, { recursive: true });
      // apt locks its archives folder; a second process would fail instead of waiting.
      await withLock(lock, () =>
        exec(["apt-get", ...options, "--quiet", "download", ...packages], { cwd: debs, timeoutMs: 300_000 }),
      );
      for (const file of await readdir(debs)) await exec(["dpkg", "-x", path.join(debs, file), target]);
      await rm(debs, { recursive: true });
    },
    async versions(packages) {
      // Names that are not there are an error only when all of them are.
      const { stdout } = await tryExec(["apt-cache", ...options, "--no-all-versions", "show", ...packages]);
      return new Map(
        stdout.split("\n\n").flatMap((stanza): [string, string][] => {
          const [, name] = /^Package: (\S+)$/m.exec(stanza) ?? [];
          const [, version] = /^Version: (\S+)$/m.exec(stanza) ?? [];
          return name === undefined || version === undefined ? [] : [[name, version]];
        }),
      );
    },
  };
}

async function update(
  base: string,
  source: string,
  options: readonly string[],
  maxAgeMs: number,
): Promise<void> {
  const stampFile = path.join(base, "updated");
  const stamp = createHash("sha256").update(source).digest("hex");
  const [when = "0", what = ""] = (await readFile(stampFile, "utf8").catch(() => "")).split(" ");
  if (what === stamp && Date.now() - Number(when) < maxAgeMs) return;
  for (const part of ["lists/partial", "cache/archives/partial", "sources.list.d"]) {
    await mkdir(path.join(base, part), { recursive: true });
  }
  await writeFile(path.join(base, "status"), "");
  await writeFile(path.join(base, "sources.list"), source);
  await exec(["apt-get", ...options, "--quiet", "update"], { timeoutMs: 300_000 });
  await writeFile(stampFile, `${Date.now()} ${stamp}`);
}
