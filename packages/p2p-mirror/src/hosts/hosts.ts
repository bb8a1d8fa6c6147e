import { TomlError } from "smol-toml";
import { whyNotUnderstood } from "./administrators-hosts.ts";
import { parseHostsFile } from "./hosts-file.ts";
import { DamagedBlockError, formatBlock, withBlock, withoutBlock, type Extra } from "./managed-block.ts";
import {
  DEFAULT_DIRECTORY,
  directoriesIn,
  directoryName,
  RegistryDirectory,
  registryOf,
  UnfitDirectoryError,
} from "./registry-directory.ts";

export interface HostsOptions {
  /** containerd's `config_path`, like `/etc/containerd/certs.d`. */
  readonly hostsDir: string;
  /** URL of the registry endpoint, as containerd is to ask it. */
  readonly mirror: string;
  /** Only these. Empty: `_default` and every registry that has a directory. */
  readonly registries: readonly string[];
  /** Registries that containerd asks itself (`registries.*.mirror`): our block is taken out of their files. */
  readonly without?: ReadonlySet<string>;
}

/** Left out: of `without`, and nothing of ours was there. Left alone: what was to be done could not be done. */
export type Outcome = "installed" | "removed" | "unchanged" | "left out" | "left alone";

/** What was done to one directory of certs.d. */
export interface Done {
  /** Name of the directory. */
  readonly directory: string;
  readonly outcome: Outcome;
  /** Why it was left alone, or is left out. */
  readonly reason?: string;
}

/**
 * Makes containerd ask the mirror first: one marked block before the first host of each file, every other byte as it was.
 * Twice is the same as once. Every file is judged for itself: where the block cannot be put without changing what was
 * there, the file stays as it is, and the reason is in the result.
 */
export async function installHosts(options: HostsOptions): Promise<Done[]> {
  return each(await chosen(options), options, async (directory, registry) => {
    if (registry !== undefined && options.without?.has(registry) === true)
      return leaveOut(directory, registry);
    return installInto(directory, options);
  });
}

/** Takes every block out; a file or a directory that was made for it goes with it. What others have added stays. */
export async function removeHosts(options: Omit<HostsOptions, "mirror">): Promise<Done[]> {
  return each(await chosen(options), options, removeFrom);
}

/** Whom containerd asks last when hosts.toml names no `server`. */
export const ITSELF = "the registry itself";

/** What containerd will do for the registries of one directory. */
export interface HostsStatus {
  readonly directory: string;
  /** The mirror is asked first. */
  readonly inForce: boolean;
  /** Of ours: the block is there. A mirror that somebody wrote down by hand is in force without. */
  readonly managed: boolean;
  /** URLs in the order in which they are asked; the last is `server`, or ITSELF. */
  readonly asks: readonly string[];
  /** Why containerd passes over this file, or cannot read it. */
  readonly problem?: string;
  /** Why the mirror cannot ask these hosts in containerd's place, and so asks nobody unless its settings say whom. */
  readonly notUnderstood?: string;
}

export async function hostsStatus(options: HostsOptions): Promise<HostsStatus[]> {
  const found: HostsStatus[] = [];
  for (const name of await chosen(options)) {
    const directory = new RegistryDirectory(options.hostsDir, name);
    found.push({ directory: name, ...(await statusOf(directory, options.mirror)) });
  }
  return found;
}

async function chosen({
  hostsDir,
  registries,
}: Pick<HostsOptions, "hostsDir" | "registries">): Promise<string[]> {
  const there = await directoriesIn(hostsDir);
  if (registries.length === 0) return there;
  return registries.flatMap((registry) => {
    if (registry === DEFAULT_DIRECTORY) return [registry];
    const named = there.filter((name) => name === registry || registryOf(name) === registry);
    return named.length > 0 ? named : [directoryName(registry)];
  });
}

async function each(
  names: readonly string[],
  { hostsDir }: Pick<HostsOptions, "hostsDir">,
  act: (directory: RegistryDirectory, registry: string | undefined) => Promise<Omit<Done, "directory">>,
): Promise<Done[]> {
  const done: Done[] = [];
  for (const name of names) {
    try {
      done.push({ directory: name, ...(await act(new RegistryDirectory(hostsDir, name), registryOf(name))) });
    } catch (error) {
      done.push({ directory: name, outcome: "left alone", reason: reasonOf(error) });
    }
  }
  return done;
}

/** One line: the parser shows the lines of the file below its message. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) throw error;
  const known = error instanceof DamagedBlockError || error instanceof UnfitDirectoryError || "code" in error;
  if (error instanceof TomlError)
    return `hosts.toml is no TOML, line ${error.line}: containerd ignores it too`;
  if (!known) throw error;
  return error.message;
}

async function installInto(
  directory: RegistryDirectory,
  { hostsDir, mirror }: HostsOptions,
): Promise<Omit<Done, "directory">> {
  const text = await directory.read();
  const managed = text === undefined ? undefined : withoutBlock(text);
  const rest = managed?.rest ?? text;
  if (rest === undefined || (rest === "" && managed?.extras.has("file") === true)) {
    // Also a second time: certificates may have come beside it.
    const extras = managed === undefined ? await newIn(directory, hostsDir) : [...managed.extras];
    return put(directory, text, formatBlock({ mirror, extras, root: await rootFor(directory) }));
  }
  const { hosts } = parseHostsFile(rest);
  const [first] = hosts.keys();
  if (first === mirror) return { outcome: "unchanged" };
  if (hosts.has(mirror)) {
    return leave(`${mirror} is written there by hand, but ${first} is asked before it`);
  }
  return put(directory, text, withBlock(rest, mirror));
}

/** @throws UnfitDirectoryError: containerd would not look into `_default` any more, where somebody has settings. */
async function newIn(directory: RegistryDirectory, hostsDir: string): Promise<Extra[]> {
  if (await directory.exists()) return ["file"];
  const fallback = await new RegistryDirectory(hostsDir, DEFAULT_DIRECTORY).read();
  if (fallback !== undefined && (withoutBlock(fallback)?.rest ?? fallback) !== "") {
    throw new UnfitDirectoryError(
      `a directory of its own would take ${DEFAULT_DIRECTORY}/hosts.toml out of force; leave --registry out`,
    );
  }
  return ["file", "directory"];
}

const leave = (reason: string): Omit<Done, "directory"> => ({ outcome: "left alone", reason });

async function put(
  directory: RegistryDirectory,
  before: string | undefined,
  after: string | undefined,
): Promise<Omit<Done, "directory">> {
  if (after === undefined) {
    return leave("no place was found for a block that leaves the hosts of hosts.toml as they are");
  }
  if (after === before) return { outcome: "unchanged" };
  await directory.write(after);
  return { outcome: "installed" };
}

/**
 * What a new file must say so that nothing is lost by its being there: containerd reads certificates beside it only where
 * there is no hosts.toml.
 */
async function rootFor(directory: RegistryDirectory): Promise<string> {
  const { ca, client } = await directory.certificates();
  return [
    ca.length > 0 ? `ca = ${JSON.stringify(ca)}\n` : "",
    client.length > 0 ? `client = ${JSON.stringify(client)}\n` : "",
  ].join("");
}

/** What cannot be read has nothing of ours in it, and is no trouble to report. */
async function leaveOut(directory: RegistryDirectory, registry: string): Promise<Omit<Done, "directory">> {
  const reason = `registries.${registry}.mirror is false`;
  try {
    await directory.read();
  } catch (error) {
    reasonOf(error);
    return { outcome: "left out", reason };
  }
  const { outcome } = await removeFrom(directory);
  return { outcome: outcome === "removed" ? outcome : "left out", reason };
}

async function removeFrom(directory: RegistryDirectory): Promise<Omit<Done, "directory">> {
  const text = await directory.read();
  const managed = text === undefined ? undefined : withoutBlock(text);
  if (managed === undefined) return { outcome: "unchanged" };
  const { rest, extras } = managed;
  if (extras.has("file") && rest === "") await directory.delete({ directory: extras.has("directory") });
  else await directory.write(rest);
  return { outcome: "removed" };
}

async function statusOf(
  directory: RegistryDirectory,
  mirror: string,
): Promise<Omit<HostsStatus, "directory">> {
  try {
    const text = await directory.read();
    if (text === undefined) return { inForce: false, managed: false, asks: [ITSELF] };
    const managed = text.includes("# >>> p2p-mirror");
    const { hosts, server } = parseHostsFile(text);
    const asks = [...hosts.keys(), server ?? ITSELF];
    const why = await whyNotUnderstood(directory, (url) => url === mirror);
    const understood = why === undefined ? {} : { notUnderstood: why };
    return { inForce: asks[0] === mirror, managed, asks, ...understood };
  } catch (error) {
    return { inForce: false, managed: false, asks: [ITSELF], problem: reasonOf(error) };
  }
}
