import fs from "node:fs";
import { promisify } from "node:util";
import { addAbortSignal, type Readable } from "node:stream";
import { LRUCache } from "lru-cache";
import {
  algorithmOf,
  BufferPool,
  Hasher,
  IntegrityError,
  InvalidInputError,
  isMissing,
  type ByteRange,
  type Digest,
} from "@p2p-mirror/shared";
import { CHUNK_BYTES, FileRangeStream } from "./file-range-stream.ts";
import { LingeringRuns } from "./lingering-runs.ts";
import { verifiedDigests } from "./verified-digests.ts";

const open = promisify(fs.open);
const close = promisify(fs.close);
const fstat = promisify<number, fs.Stats>(fs.fstat);

export interface BlobFile {
  readonly path: string;
  readonly digest: Digest;
  /** What the blob must measure; a file of another size is wrong whatever it holds. */
  readonly size: number;
}

export interface VerifiedFilesOptions {
  /** Named in errors, for example `cache`. */
  readonly source: string;
  /** Digests remembered as verified, see {@link verifiedDigests}. */
  readonly remember?: number | undefined;
  /** Bytes per read, default 512 KiB. */
  readonly chunkBytes?: number | undefined;
  /**
   * Up to this size a whole blob, too, is hashed before its first byte, so that a wrong one costs no pull; larger ones
   * would keep their reader waiting. Default 64 MiB.
   */
  readonly verifyFirstBytes?: number | undefined;
  /**
   * Milliseconds for which a hash run goes on after the last who waited for it has left, default 60,000: a large file
   * takes longer than a peer waits for its first byte, and it asks again.
   */
  readonly lingerMs?: number | undefined;
  /** Called when a file was found wrong, before its reader learns of it; again for each reader. Must not throw. */
  readonly onCorrupt?: ((file: BlobFile, error: IntegrityError, stats: fs.Stats) => void) | undefined;
  /** Called when a file was hashed and found right. Must not throw. */
  readonly onVerified?: ((file: BlobFile) => void) | undefined;
}

export interface VerifyOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called after each chunk with its bytes, awaited: the scrub slows itself down here. */
  readonly pace?: ((bytes: number) => Promise<void>) | undefined;
}

/** A tenth of a second at the rate of one core with SHA instructions. */
const VERIFY_FIRST_BYTES = 64 * 1024 * 1024;
const LINGER_MS = 60_000;
/** Hashes that were begun and are kept for whoever goes on with them; some 200 bytes each. */
const MAX_BEGUN = 64;

/**
 * Reads files that never change and are named by their digest. A file that was not hashed since this process started is
 * hashed once: before the first byte, or inline when all of a large one is read. What was found right is remembered by
 * (digest, device, inode, size, mtime), so a file that somebody replaced is hashed again.
 */
export class VerifiedFiles {
  readonly #options: VerifiedFilesOptions;
  readonly #chunkBytes: number;
  readonly #pool: BufferPool;
  readonly #verified: LRUCache<Digest, string>;
  readonly #runs: LingeringRuns;
  /** By file and stamp: how far the reader of a whole file came that left before its end. */
  readonly #begun: LRUCache<string, Hasher>;

  constructor(options: VerifiedFilesOptions) {
    this.#options = options;
    this.#chunkBytes = options.chunkBytes ?? CHUNK_BYTES;
    this.#pool = new BufferPool(this.#chunkBytes);
    this.#verified = verifiedDigests(options.remember);
    const lingerMs = options.lingerMs ?? LINGER_MS;
    this.#runs = new LingeringRuns(lingerMs);
    this.#begun = new LRUCache({ max: MAX_BEGUN, ttl: Math.max(1, lingerMs) });
  }

  /**
   * Bytes `[start, end)` of the blob, or undefined when there is no such file. The caller must consume or destroy it.
   * A whole blob that turns out wrong ends the stream in IntegrityError, its last bytes withheld.
   * @throws IntegrityError before any byte: the file has the wrong size, or a part was asked of a wrong blob, or it is
   * small.
   * @throws InvalidInputError (`RANGE_INVALID`) for a range outside the blob.
   */
  async read(
    file: BlobFile,
    range: ByteRange,
    options: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<Readable | undefined> {
    if (range.start < 0 || range.end > file.size || range.start > range.end) {
      throw new InvalidInputError("RANGE_INVALID", "range", `${range.start}-${range.end}/${file.size}`);
    }
    options.signal?.throwIfAborted();
    const fd = await this.#open(file);
    if (fd === undefined) return undefined;
    try {
      const stats = await this.#checkSize(fd, file);
      const known = this.#isKnown(file.digest, stats);
      const { verifyFirstBytes = VERIFY_FIRST_BYTES } = this.#options;
      const inline = range.start === 0 && range.end === file.size && file.size > verifyFirstBytes;
      if (!known && !inline) await this.#verifyShared(file, stats, options.signal);
      options.signal?.throwIfAborted();
      const stream = new FileRangeStream({
        fd,
        range,
        chunkBytes: this.#chunkBytes,
        pool: this.#pool,
        source: this.#options.source,
        verify:
          known || !inline
            ? undefined
            : {
                digest: file.digest,
                onEnd: (error) => this.#judge(file, stats, error),
                onLeft: (hasher) => this.#begun.set(runKey(file, stats), hasher),
              },
      });
      return options.signal === undefined ? stream : addAbortSignal(options.signal, stream);
    } catch (error) {
      await close(fd);
      throw error;
    }
  }

  /**
   * Hashes the file whatever is remembered of it. Resolves false when there is no such file.
   * @throws IntegrityError when it is wrong.
   */
  verify(file: BlobFile, options: VerifyOptions = {}): Promise<boolean> {
    return this.#verify(file, options);
  }

  /** Ends the hash runs that are under way, and waits for their end. */
  close(): Promise<void> {
    return this.#runs.close();
  }

  async #verify(
    file: BlobFile,
    options: VerifyOptions,
    begun?: { readonly key: string; readonly hasher: Hasher | undefined },
  ): Promise<boolean> {
    const fd = await this.#open(file);
    if (fd === undefined) return false;
    try {
      const stats = await this.#checkSize(fd, file);
      const hasher = begun?.key === runKey(file, stats) ? begun.hasher : undefined;
      const error = await this.#hash(fd, file, options, hasher);
      this.#judge(file, stats, error);
      if (error !== undefined) throw error;
      return true;
    } finally {
      await close(fd);
    }
  }

  /** The caller has hashed all of it and found it right: no need to do so again. */
  trust(digest: Digest, stats: fs.Stats): void {
    this.#verified.set(digest, stamp(stats));
  }

  /** A mismatch was reported elsewhere, or the file is gone: hash it again before the next byte leaves. */
  forget(digest: Digest): void {
    this.#verified.delete(digest);
  }

  /** True when this very file was hashed and found right since the process started. */
  isTrusted(digest: Digest, stats: fs.Stats): boolean {
    return this.#isKnown(digest, stats);
  }

  #isKnown(digest: Digest, stats: fs.Stats): boolean {
    return this.#verified.get(digest) === stamp(stats);
  }

  async #open(file: BlobFile): Promise<number | undefined> {
    try {
      return await open(file.path, "r");
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  async #checkSize(fd: number, file: BlobFile): Promise<fs.Stats> {
    const stats = await fstat(fd);
    if (stats.size === file.size) return stats;
    const found = `${stats.size} bytes`;
    const error = new IntegrityError("SIZE_MISMATCH", `${file.size} bytes`, found, this.#options.source);
    this.#judge(file, stats, error);
    throw error;
  }

  #judge(file: BlobFile, stats: fs.Stats, error: IntegrityError | undefined): void {
    if (error === undefined) {
      this.trust(file.digest, stats);
      this.#options.onVerified?.(file);
    } else {
      this.forget(file.digest);
      this.#options.onCorrupt?.(file, error, stats);
    }
  }

  /** One hash run for all parts asked of a file at the same time; it goes on from where a reader of the whole left. */
  #verifyShared(file: BlobFile, stats: fs.Stats, signal: AbortSignal | undefined): Promise<void> {
    const key = runKey(file, stats);
    return this.#runs.join(
      key,
      (running) => {
        const hasher = this.#begun.get(key);
        this.#begun.delete(key);
        return this.#verify(file, { signal: running }, { key, hasher });
      },
      signal,
    );
  }

  async #hash(
    fd: number,
    file: BlobFile,
    options: VerifyOptions,
    hasher = new Hasher(algorithmOf(file.digest)),
  ): Promise<IntegrityError | undefined> {
    const buffer = Buffer.allocUnsafeSlow(Math.max(1, Math.min(this.#chunkBytes, file.size)));
    while (hasher.size < file.size) {
      options.signal?.throwIfAborted();
      const length = Math.min(buffer.length, file.size - hasher.size);
      const { bytesRead } = await readInto(fd, buffer, length, hasher.size);
      if (bytesRead === 0) {
        const found = `${hasher.size} bytes`;
        return new IntegrityError("SIZE_MISMATCH", `${file.size} bytes`, found, this.#options.source);
      }
      hasher.update(buffer.subarray(0, bytesRead));
      if (options.pace !== undefined) await options.pace(bytesRead);
    }
    const found = hasher.digest();
    if (found === file.digest) return undefined;
    return new IntegrityError("DIGEST_MISMATCH", file.digest, found, this.#options.source);
  }
}

const stamp = (stats: fs.Stats): string => `${stats.dev}:${stats.ino}:${stats.size}:${stats.mtimeMs}`;

const runKey = (file: BlobFile, stats: fs.Stats): string => `${file.path} ${stamp(stats)}`;

const readInto = (
  fd: number,
  buffer: Buffer,
  length: number,
  position: number,
): Promise<{ bytesRead: number }> =>
  new Promise((resolve, reject) => {
    fs.read(fd, buffer, 0, length, position, (error, bytesRead) => {
      if (error === null) resolve({ bytesRead });
      else reject(error);
    });
  });
