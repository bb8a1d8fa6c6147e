import type { Stats } from "node:fs";
import fs, { type FileHandle } from "node:fs/promises";
import { IntegrityError, type Descriptor, type Repository } from "@p2p-mirror/shared";
import type { Ingest } from "../blob-cache.ts";
import type { Reservation } from "./evictor.ts";

export interface CacheIngestDeps {
  readonly path: string;
  readonly reservation: Reservation;
  /** Gives the finished, synced file its blob's name and enters it in the index. */
  publish(path: string, descriptor: Descriptor, origin: Repository, stats: Stats): Promise<void>;
  /** Any failure on the way to disk, for the metrics. */
  onError(error: unknown): void;
  onReleased(ingest: CacheIngest): void;
}

/** A temporary file on its way to becoming a blob. */
export class CacheIngest implements Ingest {
  readonly file: FileHandle;
  readonly #descriptor: Descriptor;
  readonly #origin: Repository;
  readonly #deps: CacheIngestDeps;
  #committing: Promise<void> | undefined;
  #committed = false;
  #releasing: Promise<void> | undefined;

  private constructor(file: FileHandle, descriptor: Descriptor, origin: Repository, deps: CacheIngestDeps) {
    this.file = file;
    this.#descriptor = descriptor;
    this.#origin = origin;
    this.#deps = deps;
  }

  /** Makes the file with its final size and no blocks. Throws what the file system throws, and leaves nothing then. */
  static async create(
    descriptor: Descriptor,
    origin: Repository,
    deps: CacheIngestDeps,
  ): Promise<CacheIngest> {
    const file = await fs.open(deps.path, "wx+");
    try {
      await file.truncate(descriptor.size);
    } catch (error) {
      await file.close();
      await fs.rm(deps.path, { force: true });
      throw error;
    }
    return new CacheIngest(file, descriptor, origin, deps);
  }

  get keeps(): boolean {
    return this.#deps.reservation.keeps;
  }

  /** Bytes that were promised but have no blocks yet. */
  async unwritten(): Promise<number> {
    if (this.#releasing !== undefined || this.#committed) return 0;
    const stats = await this.file.stat();
    return Math.max(0, this.#descriptor.size - stats.blocks * 512);
  }

  commit(): Promise<void> {
    if (this.#releasing !== undefined) return Promise.reject(new Error("the ingest was released"));
    this.#committing ??= this.keeps ? this.#commit() : Promise.resolve();
    return this.#committing;
  }

  async #commit(): Promise<void> {
    try {
      // The data first, then the name: whatever the machine does in between, no blob's name leads to half a blob.
      await this.file.datasync();
      const stats = await this.file.stat();
      if (stats.size !== this.#descriptor.size) {
        throw new IntegrityError(
          "SIZE_MISMATCH",
          `${this.#descriptor.size} bytes`,
          `${stats.size} bytes`,
          "ingest",
        );
      }
      await this.#deps.publish(this.#deps.path, this.#descriptor, this.#origin, stats);
      this.#committed = true;
      this.#deps.reservation.release();
    } catch (error) {
      this.#deps.onError(error);
      throw error;
    }
  }

  release(): Promise<void> {
    this.#releasing ??= this.#release();
    return this.#releasing;
  }

  async #release(): Promise<void> {
    await this.#committing?.catch(() => undefined);
    try {
      await this.file.close();
      if (!this.#committed) await fs.rm(this.#deps.path, { force: true });
    } finally {
      this.#deps.reservation.release();
      this.#deps.onReleased(this);
    }
  }
}
