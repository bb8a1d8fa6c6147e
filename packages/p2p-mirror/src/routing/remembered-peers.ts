import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { multiaddr, type Multiaddr } from "@multiformats/multiaddr";
import { Debounced, type Logger } from "@p2p-mirror/shared";

export const PEERS_FILE = "peers.json";

/** Enough to find the cluster again; all of a large one would only be dialled for nothing. */
const MAX_PEERS = 128;
const MAX_FILE_BYTES = 256 * 1024;
/** A mirror that is killed in its first minute is to know its cluster, too; a cluster that starts is not written node by node. */
const WRITE_AFTER = { quietMs: 2_000, mostMs: 10_000 };

export interface RememberedPeersDeps {
  /** The libp2p addresses of the nodes that are known now. */
  current(): readonly Multiaddr[];
  readonly logger: Logger;
}

/**
 * The nodes of the last run, in a file. It is a help and nothing else: a file that is not there, or cannot be understood,
 * is no peers.
 */
export class RememberedPeers {
  readonly #file: string;
  readonly #deps: RememberedPeersDeps;
  readonly #soon = new Debounced(WRITE_AFTER, () => void this.#save());
  #addresses: readonly Multiaddr[] = [];
  #written: string | undefined;
  #saving: Promise<void> = Promise.resolve();

  constructor(file: string, deps: RememberedPeersDeps) {
    this.#file = file;
    this.#deps = deps;
  }

  /** Those of the last run, until there are some of this one. */
  get addresses(): readonly Multiaddr[] {
    return this.#addresses;
  }

  async load(): Promise<void> {
    this.#addresses = await readPeers(this.#file);
  }

  /**
   * Somebody came, or has another address: the file follows within seconds. Not to be called for those who go: of a node
   * that is cut off they go one after the other, and the file would forget them so.
   */
  changed(): void {
    this.#soon.request();
  }

  async close(): Promise<void> {
    this.#soon.close();
    await this.#save();
  }

  /** One at a time, so that what was known last is what stays. */
  #save(): Promise<void> {
    this.#saving = this.#saving.then(() => this.#write());
    return this.#saving;
  }

  /** Nobody at all changes nothing: a node that lost everybody wants its last peers most. */
  async #write(): Promise<void> {
    const addresses = this.#deps.current();
    if (addresses.length === 0) return;
    this.#addresses = addresses;
    const text = `${JSON.stringify(addresses.slice(0, MAX_PEERS).map(String), null, 1)}\n`;
    if (text === this.#written) return;
    try {
      await replaceFile(this.#file, text);
      this.#written = text;
    } catch (error) {
      this.#deps.logger.warn({ err: error }, "the peers could not be remembered");
    }
  }
}

/** One process writes to a data directory, so one that was killed while it wrote leaves no more than one such file. */
async function replaceFile(file: string, text: string): Promise<void> {
  const temporary = `${file}.new`;
  await mkdir(dirname(file), { recursive: true });
  try {
    await writeFile(temporary, text);
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

async function readPeers(file: string): Promise<Multiaddr[]> {
  try {
    const text = await readFile(file, "utf8");
    if (text.length > MAX_FILE_BYTES) return [];
    const json: unknown = JSON.parse(text);
    if (!Array.isArray(json)) return [];
    return json
      .slice(0, MAX_PEERS)
      .map(readAddress)
      .filter((address) => address !== undefined);
  } catch {
    return [];
  }
}

function readAddress(text: unknown): Multiaddr | undefined {
  if (typeof text !== "string") return undefined;
  try {
    return multiaddr(text);
  } catch {
    return undefined;
  }
}
