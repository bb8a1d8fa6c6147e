import { randomUUID } from "node:crypto";
import type { Stats } from "node:fs";
import {
  chmod,
  chown,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  rmdir,
  stat,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import { codeOf } from "@p2p-mirror/shared/config";
import { MAX_HOSTS_BYTES } from "./hosts-file.ts";

/** Settings of all registries that have no directory of their own. */
export const DEFAULT_DIRECTORY = "_default";

const absent = (error: unknown): undefined => {
  if (codeOf(error) !== "ENOENT") throw error;
};

/** A directory that the block cannot go into; the message says why. */
export class UnfitDirectoryError extends Error {
  override readonly name = "UnfitDirectoryError";
}

/** `registry:5000` is looked for as `registry_5000_` first (containerd, `hostDirectory`). */
export function directoryName(registry: string): string {
  const colon = registry.lastIndexOf(":");
  return colon > 0 ? `${registry.slice(0, colon)}_${registry.slice(colon + 1)}_` : registry;
}

/** The registry whose directory it is. Undefined: `_default`, or none of containerd's (`_backup` of other tools). */
export function registryOf(directory: string): string | undefined {
  if (directory.startsWith("_") || directory.startsWith(".")) return undefined;
  return directory.replace(/_(\d+)_$/, ":$1");
}

/** Names of the directories that containerd looks into, `_default` first whether it is there or not. */
export async function directoriesIn(hostsDir: string): Promise<string[]> {
  const entries = (await readdir(hostsDir, { withFileTypes: true }).catch(absent)) ?? [];
  const names: string[] = [];
  for (const entry of entries) {
    if (registryOf(entry.name) === undefined) continue;
    const found = await stat(join(hostsDir, entry.name)).catch(absent);
    if (found?.isDirectory() ?? entry.isSymbolicLink()) names.push(entry.name);
  }
  return [DEFAULT_DIRECTORY, ...names.toSorted()];
}

/** One directory of certs.d. */
export class RegistryDirectory {
  readonly path: string;

  constructor(hostsDir: string, name: string) {
    this.path = join(hostsDir, name);
  }

  get file(): string {
    return join(this.path, "hosts.toml");
  }

  async exists(): Promise<boolean> {
    return (await stat(this.path).catch(absent)) !== undefined;
  }

  /** The text of hosts.toml. Undefined: there is none. @throws UnfitDirectoryError, and what the file system throws. */
  async read(): Promise<string | undefined> {
    await this.#mustLeadSomewhere(this.path);
    const found = await stat(this.file).catch(absent);
    if (found === undefined) {
      await this.#mustLeadSomewhere(this.file);
      return undefined;
    }
    if (!found.isFile() || found.size > MAX_HOSTS_BYTES)
      throw new UnfitDirectoryError("hosts.toml is no file of up to 1 MiB");
    const bytes = await readFile(this.file);
    try {
      // A byte order mark stays: every byte is kept.
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    } catch (error) {
      throw new UnfitDirectoryError("hosts.toml is no UTF-8", { cause: error });
    }
  }

  /** From within a container a link of the node may lead nowhere, though containerd can follow it. */
  async #mustLeadSomewhere(path: string): Promise<void> {
    const link = await lstat(path).catch(absent);
    if (link?.isSymbolicLink() === true && (await stat(path).catch(absent)) === undefined) {
      throw new UnfitDirectoryError(`${path} is a link that leads nowhere, as seen from here`);
    }
  }

  /** Certificates as Docker lays them out, which containerd uses only where there is no hosts.toml (`loadCertFiles`). */
  async certificates(): Promise<{ readonly ca: string[]; readonly client: string[][] }> {
    const names = (await readdir(this.path).catch(absent)) ?? [];
    const client = names
      .filter((name) => name.endsWith(".cert"))
      .map((name) => {
        const key = name.replace(/\.cert$/, ".key");
        return names.includes(key) ? [name, key] : [name, name];
      });
    return { ca: names.filter((name) => name.endsWith(".crt")), client };
  }

  /** Replaces hosts.toml in one step, with owner and mode as before; a link to it stays a link. */
  async write(text: string): Promise<void> {
    await mkdir(this.path).catch((error: unknown) => {
      if (codeOf(error) !== "EEXIST") throw error;
    });
    const target = (await realpath(this.file).catch(absent)) ?? this.file;
    const before = await stat(target).catch(absent);
    const temporary = join(dirname(target), `.hosts.toml.${randomUUID()}`);
    try {
      await writeDurably(temporary, text, before);
      await rename(temporary, target);
    } catch (error) {
      await rm(temporary, { force: true });
      throw error;
    }
  }

  /** Deletes hosts.toml, and the directory if asked and nothing else is in it. */
  async delete(options: { readonly directory: boolean }): Promise<void> {
    await rm(this.file);
    if (!options.directory) return;
    await rmdir(this.path).catch((error: unknown) => {
      if (codeOf(error) !== "ENOTEMPTY" && codeOf(error) !== "EEXIST") throw error;
    });
  }
}

async function writeDurably(path: string, text: string, like: Stats | undefined): Promise<void> {
  const file = await open(path, "wx", 0o644);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  if (like === undefined) return;
  await chown(path, like.uid, like.gid);
  await chmod(path, like.mode & 0o7777);
}
