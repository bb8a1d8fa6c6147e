import { randomUUID } from "node:crypto";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { multiaddr, type Multiaddr } from "@multiformats/multiaddr";

export const PEERS_FILE = "peers.json";

/** Enough to find the cluster again; all of a large one would only be dialled for nothing. */
const MAX_PEERS = 128;
const MAX_FILE_BYTES = 256 * 1024;

function readAddress(text: unknown): Multiaddr | undefined {
  if (typeof text !== "string") return undefined;
  try {
    return multiaddr(text);
  } catch {
    return undefined;
  }
}

/**
 * The libp2p addresses of nodes of the last run. It is a help and nothing else: a file that is not there, or cannot be
 * understood, is no peers.
 */
export async function readRememberedPeers(file: string): Promise<Multiaddr[]> {
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

/** Replaces the file as a whole. An empty list changes nothing: a node that lost everybody wants its last peers most. */
export async function writeRememberedPeers(file: string, addresses: readonly Multiaddr[]): Promise<void> {
  if (addresses.length === 0) return;
  await mkdir(dirname(file), { recursive: true });
  const temporary = `${file}.${randomUUID()}`;
  try {
    await writeFile(temporary, `${JSON.stringify(addresses.slice(0, MAX_PEERS).map(String), null, 1)}\n`);
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
