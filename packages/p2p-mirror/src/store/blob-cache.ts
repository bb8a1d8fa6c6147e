import type { FileHandle } from "node:fs/promises";
import type { Descriptor, Repository } from "@p2p-mirror/shared";
import type { ContentStore } from "./content-store.ts";

/** A blob on its way into the cache: a sparse file of the blob's size that nobody else sees. */
export interface Ingest {
  /** Open for reading and writing; the caller writes and reads at any offset, and never closes it. */
  readonly file: FileHandle;
  /** False: it is on the disk until `release` and no longer, whatever becomes of it. */
  readonly keeps: boolean;
  /**
   * Takes the blob into the cache (rename, then index) if it is to be kept, after the caller has verified size and digest
   * of all of it. Readers of `file` may go on reading until `release`.
   */
  commit(): Promise<void>;
  /** Closes the file; removes it unless committed. Idempotent. */
  release(): Promise<void>;
}

/** Port: the mirror's own store, the only one it writes to. */
export interface BlobCache extends ContentStore {
  readonly name: "cache";

  /**
   * Room for a blob that is about to be fetched for `origin`. Evicts what is least recently used. What is not to be kept
   * (the cache is off for that registry, the blob is larger than the cache: counted) has a file for as long as it takes,
   * if the disk has room for it without evicting anything. Undefined: nothing of it can be on the disk. An I/O error while
   * writing (ENOSPC) is the caller's sign to go on without.
   */
  ingest(descriptor: Descriptor, origin: Repository): Promise<Ingest | undefined>;

  /** Stores bytes that are in memory and verified (manifests). Never fails the caller: what cannot be kept is not kept. */
  put(descriptor: Descriptor, bytes: Uint8Array, origin: Repository): Promise<void>;
}
