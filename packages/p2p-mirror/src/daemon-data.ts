import { lstat, readdir, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { codeOf, isMissing, silentLogger } from "@p2p-mirror/shared";
import { PEERS_FILE } from "./routing/remembered-peers.ts";
import { IndexDb } from "./store/cache/index-db.ts";
import { IDENTITY_FILE } from "./trust/identity.ts";

/** Directory of the cache in the data directory. */
export const CACHE_DIR = "cache";

/** What is ours in the data directory, with what a run that was killed may have left beside it. */
const isOurs = (name: string): boolean =>
  name === CACHE_DIR ||
  [IDENTITY_FILE, PEERS_FILE].some((file) => name === file || name.startsWith(`${file}.`)) ||
  name.startsWith(".probe-");

/** What was done to a data directory. */
export interface RemovedData {
  readonly removed: readonly string[];
  /** Names in it that are nobody's of ours: they stay, and the directory with them. */
  readonly left: readonly string[];
}

/**
 * Removes what a mirror has written into its data directory, and the directory when nothing else is in it. Whatever
 * directory is named by mistake, what is not ours stays. A directory that something is mounted at stays, empty.
 * @throws CacheInUseError: a mirror runs with it
 */
export async function removeData(dataDir: string): Promise<RemovedData> {
  const names = await readdir(dataDir).catch(orMissing);
  if (names === undefined) return { removed: [], left: [] };
  const removed = names.filter(isOurs);
  await refuseIfUsed(join(dataDir, CACHE_DIR, "index.db"));
  for (const name of removed) await rm(join(dataDir, name), { recursive: true, force: true });
  const left = names.filter((name) => !isOurs(name));
  if (left.length === 0) {
    await rmdir(dataDir).catch((error: unknown) => {
      if (codeOf(error) !== "EBUSY") throw error;
    });
  }
  return { removed, left };
}

async function refuseIfUsed(index: string): Promise<void> {
  if ((await lstat(index).catch(orMissing)) === undefined) return;
  const db = new IndexDb(index, { logger: silentLogger(), onError: () => undefined });
  try {
    await db.open({ diskFull: false });
  } finally {
    db.close();
  }
}

function orMissing(error: unknown): undefined {
  if (!isMissing(error)) throw error;
}
