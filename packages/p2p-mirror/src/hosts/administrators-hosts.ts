import { readFile, stat } from "node:fs/promises";
import { resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { Logger } from "@p2p-mirror/shared";
import { codeOf } from "@p2p-mirror/shared/config";
import { TomlError } from "smol-toml";
import { readHostSettings, NotUnderstoodError, type HostSettings } from "./host-settings.ts";
import { parseHostsFile } from "./hosts-file.ts";
import { DamagedBlockError, withoutBlock } from "./managed-block.ts";
import {
  DEFAULT_DIRECTORY,
  directoriesIn,
  directoryName,
  RegistryDirectory,
  UnfitDirectoryError,
} from "./registry-directory.ts";

/** One host of a registry as the administrator had it before the mirror came, certificates read. */
export interface AdministratorsHost extends Omit<HostSettings, "ca" | "client"> {
  /** PEM text. */
  readonly ca: readonly string[];
  readonly clientCert: { readonly cert: string; readonly key: string } | undefined;
}

type Hosts = readonly AdministratorsHost[];

/**
 * Of a file that is not understood. Not the registry itself: it may be what the administrator does not want to be asked
 * (k3s rewrites names for a registry of its own), or out of reach. Asking nobody is a 404 at once, and containerd, which
 * understands the file, goes on to the hosts that are in it. The mirror's block may stay in front: what a node of the
 * cluster holds is right by its digest, wherever it is from.
 */
const NOBODY: Hosts = [];

/** Bundles of all public CAs have about 250 KiB. */
const MAX_PEM_BYTES = 4 * 1024 * 1024;

/**
 * What containerd would do for each registry if the mirror were not there: all of hosts.toml but the mirror's own block.
 * The mirror asks these hosts in containerd's place, so that what the administrator had set up still counts. A file that
 * is not understood is said once, and while it is not, the mirror asks nobody for its registry, whatever stood there before.
 */
export class AdministratorsHosts {
  readonly #hostsDir: string;
  readonly #isSelf: (url: string) => boolean;
  readonly #logger: Logger;
  /** Undefined: the directory is there, and lists nobody. */
  #byDirectory: ReadonlyMap<string, Hosts | undefined> = new Map();
  /** Directory to what was logged. */
  #said = new Map<string, string>();

  /** @param isSelf whether a URL is that of this mirror, which somebody may have written down by hand */
  constructor(
    { hostsDir, isSelf }: { readonly hostsDir: string; readonly isSelf: (url: string) => boolean },
    { logger }: { readonly logger: Logger },
  ) {
    this.#hostsDir = hostsDir;
    this.#isSelf = isSelf;
    this.#logger = logger;
  }

  /**
   * By the first directory that is there, as containerd looks (`hostDirFromRoot`). Undefined: nobody is listed. Empty:
   * nobody is to be asked.
   */
  of(registry: string): Hosts | undefined {
    const names = [directoryName(registry), registry, DEFAULT_DIRECTORY];
    const name = names.find((one) => this.#byDirectory.has(one));
    return name === undefined ? undefined : this.#byDirectory.get(name);
  }

  /** Reads all of it again. What is the same stays the same object. */
  async read(): Promise<void> {
    const before = this.#byDirectory;
    const after = new Map<string, Hosts | undefined>();
    const said = new Map<string, string>();
    for (const name of await directoriesIn(this.#hostsDir)) {
      const directory = new RegistryDirectory(this.#hostsDir, name);
      try {
        if (!(await directory.exists())) continue;
        const hosts = await readHosts(directory, this.#isSelf);
        after.set(name, isDeepStrictEqual(hosts, before.get(name)) ? before.get(name) : hosts);
      } catch (error) {
        const reason = reasonOf(error);
        after.set(name, NOBODY);
        said.set(name, reason);
        if (this.#said.get(name) === reason) continue;
        this.#logger.warn(
          { file: directory.file, reason },
          "hosts.toml is not understood: the mirror asks nobody for its registry, unless its own settings say whom; containerd asks the hosts of the file for what no node holds",
        );
      }
    }
    this.#byDirectory = after;
    this.#said = said;
  }
}

/** Undefined: the file is understood. Otherwise one line that says why not. */
export async function whyNotUnderstood(
  directory: RegistryDirectory,
  isSelf: (url: string) => boolean,
): Promise<string | undefined> {
  try {
    await readHosts(directory, isSelf);
    return undefined;
  } catch (error) {
    return reasonOf(error);
  }
}

/** Undefined: nobody is listed. @throws what `reasonOf` knows */
async function readHosts(
  directory: RegistryDirectory,
  isSelf: (url: string) => boolean,
): Promise<Hosts | undefined> {
  const text = await directory.read();
  const rest = text === undefined ? "" : (withoutBlock(text)?.rest ?? text);
  const settings = rest === "" ? await fromCertificates(directory) : fromFile(rest);
  const hosts = settings.flatMap((one, index): HostSettings[] => {
    if (one.url === undefined || !isSelf(one.url)) return [one];
    // As the last one, it was to be everything; something must be behind it.
    return index === settings.length - 1 ? [ITSELF] : [];
  });
  const says = hosts.length > 1 || hosts.some((one) => !isDeepStrictEqual(one, ITSELF));
  return says ? Promise.all(hosts.map((one) => withPem(one, directory.path))) : undefined;
}

/** The registry as its name says, with everything at its default. */
const ITSELF: HostSettings = readHostSettings(undefined, {}, "");

/** @throws TomlError, NotUnderstoodError */
function fromFile(text: string): HostSettings[] {
  const { hosts, server, root } = parseHostsFile(text);
  return [
    ...[...hosts].map(([url, table]) => readHostSettings(url, table, `host.${withoutLogin(url)}.`)),
    readHostSettings(server, root, ""),
  ];
}

const withoutLogin = (url: string): string => JSON.stringify(url.replace(/\/\/[^/]*@/, "//"));

/** Without a hosts.toml containerd looks for certificates in the directory. */
async function fromCertificates(directory: RegistryDirectory): Promise<HostSettings[]> {
  const { ca, client } = await directory.certificates();
  const [first] = client;
  return [
    {
      ...ITSELF,
      ca,
      client: first?.[0] === undefined ? undefined : { cert: first[0], key: first[1] },
    },
  ];
}

async function withPem(
  { ca, client, ...settings }: HostSettings,
  directory: string,
): Promise<AdministratorsHost> {
  const pem = (path: string): Promise<string> => readPem(resolve(directory, path));
  return {
    ...settings,
    ca: await Promise.all(ca.map(pem)),
    clientCert:
      client === undefined
        ? undefined
        : { cert: await pem(client.cert), key: await pem(client.key ?? client.cert) },
  };
}

/** @throws NotUnderstoodError */
async function readPem(path: string): Promise<string> {
  let text = "";
  try {
    if ((await stat(path)).size <= MAX_PEM_BYTES) text = await readFile(path, "utf8");
  } catch (error) {
    throw new NotUnderstoodError(`${path} cannot be read (${error instanceof Error ? error.message : ""})`);
  }
  if (!text.includes("-----BEGIN ")) throw new NotUnderstoodError(`${path} is no PEM file`);
  return text;
}

/** One line, without anything of the file's content: headers are secrets. */
function reasonOf(error: unknown): string {
  if (error instanceof TomlError) return `no TOML, line ${error.line}`;
  const known =
    error instanceof NotUnderstoodError ||
    error instanceof DamagedBlockError ||
    error instanceof UnfitDirectoryError ||
    (error instanceof Error && codeOf(error) !== "");
  if (!known) throw error;
  return error.message;
}
