import { statSync, type Stats } from "node:fs";
import fs, { type FileHandle } from "node:fs/promises";
import type { Readable } from "node:stream";
import {
  digestOf,
  algorithmOf,
  IntegrityError,
  type ByteRange,
  type Descriptor,
  type Digest,
  type Logger,
  type Repository,
  isDiskFull,
  isMissing,
  isUnreadable,
} from "@p2p-mirror/shared";
import type { BlobCache, Ingest } from "../blob-cache.ts";
import type { ContentEvent, StoredBlob, StoreOptions } from "../content-store.ts";
import type { StoreMetrics } from "../metrics.ts";
import { VerifiedFiles, type BlobFile } from "../verified-file.ts";
import type { BlobEntry, BlobIndex } from "./blob-index.ts";
import { CacheIngest } from "./cache-ingest.ts";
import type { EvictionReason, Reservation } from "./evictor.ts";
import { KeyedLock } from "./keyed-lock.ts";
import type { OciLayout } from "./oci-layout.ts";

export interface DiskCacheDeps {
  readonly layout: OciLayout;
  readonly index: BlobIndex;
  readonly logger: Logger;
  readonly metrics: StoreMetrics;
  readonly now: () => number;
  readonly reserve: (size: number, registry: string) => Promise<Reservation | undefined>;
  /** Room on the disk for what is not kept. */
  readonly lend: (size: number) => Promise<Reservation | undefined>;
  readonly isOff: (registry: string) => boolean;
  /** See VerifiedFilesOptions. */
  readonly verifyFirstBytes?: number | undefined;
  /** A blob's bytes were verified and are stored: its size is no longer what some manifest says. */
  readonly onStored: (descriptor: Descriptor) => void;
  /** Which blobs are held has changed; not called for uses. */
  readonly onChange: () => void;
}

/** The mirror's own store: blobs as files of an OCI image layout. */
export class DiskCache implements BlobCache {
  readonly name = "cache";
  readonly #deps: DiskCacheDeps;
  readonly #files: VerifiedFiles;
  readonly #locks = new KeyedLock<Digest>();
  readonly #listeners = new Set<(event: ContentEvent) => void>();
  readonly #ingests = new Set<CacheIngest>();
  readonly #removals = new Set<Promise<void>>();
  #closed = false;

  constructor(deps: DiskCacheDeps) {
    this.#deps = deps;
    this.#files = new VerifiedFiles({
      source: "cache",
      verifyFirstBytes: deps.verifyFirstBytes,
      onVerified: (file) => deps.index.verified(file.digest, deps.now()),
      onCorrupt: (file, error, stats) => this.#corrupt(file.digest, error, stats.ino),
    });
  }

  async stat(digest: Digest, options: StoreOptions = {}): Promise<StoredBlob | undefined> {
    options.signal?.throwIfAborted();
    const entry = this.#deps.index.get(digest);
    if (entry === undefined) return undefined;
    try {
      const stats = await fs.stat(this.#deps.layout.blobPath(digest));
      if (stats.size === entry.size) return { digest, size: entry.size };
      const found = `${stats.size} bytes`;
      this.#corrupt(
        digest,
        new IntegrityError("SIZE_MISMATCH", `${entry.size} bytes`, found, "cache"),
        stats.ino,
      );
    } catch (error) {
      this.#unusable(entry, error);
    }
    return undefined;
  }

  async read(digest: Digest, range: ByteRange, options: StoreOptions = {}): Promise<Readable | undefined> {
    const entry = this.#deps.index.get(digest);
    if (entry === undefined) return undefined;
    this.#deps.index.touch(digest, this.#deps.now());
    try {
      const stream = await this.#files.read(this.#file(entry), range, options);
      if (stream === undefined) this.#vanished(entry);
      else stream.once("error", (error) => this.#unusable(entry, error));
      return stream;
    } catch (error) {
      // Found wrong before its first byte: it is removed, so it is not held.
      if (error instanceof IntegrityError) return undefined;
      if (this.#unusable(entry, error)) return undefined;
      throw error;
    }
  }

  // Async by its port, though the index is in memory.
  // eslint-disable-next-line typescript/require-await
  async *list(options: StoreOptions = {}): AsyncGenerator<StoredBlob> {
    for (const { digest, size } of this.#deps.index.entries().toArray()) {
      options.signal?.throwIfAborted();
      if (this.#deps.index.has(digest)) yield { digest, size };
    }
  }

  watch(listener: (event: ContentEvent) => void): () => void {
    // A wrapper of its own: the same function may watch twice.
    const own = (event: ContentEvent): void => listener(event);
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }

  async ingest(descriptor: Descriptor, origin: Repository): Promise<Ingest | undefined> {
    const { layout } = this.#deps;
    if (this.#closed) return undefined;
    let reservation: Reservation | undefined;
    try {
      reservation = (await this.#reserve(descriptor, origin)) ?? (await this.#deps.lend(descriptor.size));
      if (reservation === undefined) return undefined;
      await layout.prepare();
      const ingest = await CacheIngest.create(descriptor, origin, {
        path: layout.temporaryPath("ingest"),
        reservation,
        publish: (path, blob, from, stats) => this.#publish(path, blob, from, stats),
        onError: (error) => this.#failed(error, descriptor),
        onReleased: (one) => void this.#ingests.delete(one),
      });
      this.#ingests.add(ingest);
      reservation.opened();
      if (!this.#closed) return ingest;
      await ingest.release();
      return undefined;
    } catch (error) {
      reservation?.release();
      // What is not to be kept is no failure of the cache.
      if (reservation?.keeps === true) this.#failed(error, descriptor);
      else this.#deps.logger.debug({ digest: descriptor.digest, err: error }, "no file for a blob");
      return undefined;
    }
  }

  /** Undefined: not to be kept. */
  async #reserve({ digest, size }: Descriptor, { registry }: Repository): Promise<Reservation | undefined> {
    const { reserve, isOff, metrics, logger } = this.#deps;
    if (isOff(registry)) return undefined;
    const reservation = await reserve(size, registry);
    if (reservation !== undefined) return reservation;
    metrics.ingestFailed("no_room");
    logger.debug({ digest, size }, "no room in the cache");
    return undefined;
  }

  async put(descriptor: Descriptor, bytes: Uint8Array, origin: Repository): Promise<void> {
    const { digest } = descriptor;
    const found = digestOf(bytes, algorithmOf(digest));
    if (found !== digest || bytes.byteLength !== descriptor.size) {
      this.#deps.logger.error({ digest, found }, "bytes that are not what their digest says were not stored");
      return;
    }
    if (this.#deps.isOff(origin.registry)) return;
    if ((await this.stat(digest)) !== undefined) {
      this.#deps.index.link(digest, origin, this.#deps.now());
      return;
    }
    const ingest = await this.ingest(descriptor, origin);
    if (ingest?.keeps !== true) return ingest?.release();
    try {
      await writeAll(ingest.file, bytes).catch((error: unknown) => {
        this.#failed(error, descriptor);
        throw error;
      });
      await ingest.commit();
    } catch {
      // Counted and logged where it failed.
    } finally {
      await ingest.release().catch((error: unknown) => this.#failed(error, descriptor));
    }
  }

  /** Bytes of open ingests that have no blocks on disk yet. */
  async unwritten(): Promise<number> {
    const each = await Promise.all([...this.#ingests].map((ingest) => ingest.unwritten().catch(() => 0)));
    return each.reduce((sum, bytes) => sum + bytes, 0);
  }

  /** Takes a blob out: from the index and its watchers at once, then from the disk. */
  async evict(digest: Digest, reason: EvictionReason): Promise<void> {
    const entry = this.#deps.index.get(digest);
    if (entry === undefined) return;
    this.#deps.metrics.evicted(reason, entry.size);
    await this.#remove(digest);
  }

  /** Hashes a blob now, whatever is remembered of it; a wrong one is removed. False when it is not held (any more). */
  async verify(
    digest: Digest,
    options: { signal?: AbortSignal | undefined; pace?: (bytes: number) => Promise<void> } = {},
  ): Promise<boolean> {
    const entry = this.#deps.index.get(digest);
    if (entry === undefined) return false;
    this.#files.forget(digest);
    try {
      const there = await this.#files.verify(this.#file(entry), options);
      if (!there) this.#vanished(entry);
      return there;
    } catch (error) {
      if (error instanceof IntegrityError || this.#unusable(entry, error)) return false;
      throw error;
    }
  }

  /** Ends what is under way: open ingests are given up, removals are waited for. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#listeners.clear();
    await this.#files.close();
    await Promise.allSettled([...this.#ingests].map((ingest) => ingest.release()));
    while (this.#removals.size > 0) await Promise.allSettled(this.#removals);
  }

  #file(entry: BlobEntry): BlobFile {
    return { path: this.#deps.layout.blobPath(entry.digest), digest: entry.digest, size: entry.size };
  }

  #publish(path: string, descriptor: Descriptor, origin: Repository, stats: Stats): Promise<void> {
    const { digest, size } = descriptor;
    return this.#locks.run(digest, async () => {
      await this.#deps.layout.publish(path, digest);
      this.#files.trust(digest, stats);
      const added = this.#deps.index.add(digest, size, origin, this.#deps.now());
      this.#deps.onStored(descriptor);
      this.#deps.onChange();
      if (added) this.#emit({ kind: "added", blob: { digest, size } });
    });
  }

  #corrupt(digest: Digest, error: Error, inode: number | undefined): void {
    // Already replaced or removed: the verdict is of a file that only its reader still has. Synchronous, so that nothing
    // comes between the look and the removal; it happens once in the life of a disk.
    const path = this.#deps.layout.blobPath(digest);
    if (!this.#deps.index.has(digest)) return;
    if (inode !== undefined && statSync(path, { throwIfNoEntry: false })?.ino !== inode) return;
    this.#deps.metrics.corrupt.inc();
    this.#deps.logger.warn(
      { digest, err: error },
      "a blob in the cache is corrupt: removed, it will be fetched again",
    );
    this.#track(this.#remove(digest, inode));
  }

  #vanished(entry: BlobEntry): void {
    if (this.#deps.index.get(entry.digest) !== entry) return;
    this.#deps.logger.warn({ digest: entry.digest }, "a blob is gone from the cache directory");
    this.#track(this.#remove(entry.digest));
  }

  /** Takes a blob out whose file cannot be read. False when the error says nothing against the file. */
  #unusable(entry: BlobEntry, error: unknown): boolean {
    if (isMissing(error)) this.#vanished(entry);
    else if (isUnreadable(error) && error instanceof Error) this.#corrupt(entry.digest, error, undefined);
    else return false;
    return true;
  }

  #remove(digest: Digest, inode?: number): Promise<void> {
    const { index, layout } = this.#deps;
    this.#files.forget(digest);
    if (index.remove(digest)) {
      this.#deps.onChange();
      // Before the file goes: whoever advertises it should stop first.
      this.#emit({ kind: "removed", digest });
    }
    return this.#locks.run(digest, async () => {
      // Stored anew while this waited: what lies there now is another file.
      if (!index.has(digest)) await layout.discard(digest, inode);
    });
  }

  #track(removal: Promise<void>): void {
    const tracked = removal
      .catch((error: unknown) =>
        this.#deps.logger.warn({ err: error }, "a blob could not be removed from the cache"),
      )
      .finally(() => this.#removals.delete(tracked));
    this.#removals.add(tracked);
  }

  #failed(error: unknown, { digest }: Descriptor): void {
    const { metrics, logger } = this.#deps;
    if (isDiskFull(error)) metrics.diskFull.inc();
    metrics.ingestFailed(isDiskFull(error) ? "disk_full" : "io");
    logger.warn({ digest, err: error }, "a blob could not be stored: serving goes on without");
  }

  #emit(event: ContentEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  let written = 0;
  while (written < bytes.byteLength) {
    const { bytesWritten } = await file.write(bytes, written, bytes.byteLength - written, written);
    written += bytesWritten;
  }
}
