import { randomUUID } from "node:crypto";
import type { Dirent } from "node:fs";
import fs from "node:fs/promises";
import path from "node:path";
import {
  algorithmOf,
  hexOf,
  isDigest,
  MEDIA_TYPES,
  type Digest,
  type DigestAlgorithm,
  isDiskFull,
  isMissing,
} from "@p2p-mirror/shared";

const ALGORITHMS: readonly DigestAlgorithm[] = ["sha256", "sha512"];

/**
 * The directory: an OCI image layout 1.0.0 (OCI image spec, image-layout.md: `oci-layout`, `index.json`, `blobs/`), and
 * beside what the spec names `index.db` and `ingest/`, which other tools do not look at.
 */
export class OciLayout {
  readonly dir: string;
  readonly databasePath: string;
  readonly indexPath: string;
  readonly #ingestDir: string;
  #prepared = false;
  readonly #syncing = new Map<string, { next: Promise<void> | undefined; running: Promise<void> }>();

  constructor(dir: string) {
    this.dir = dir;
    this.databasePath = path.join(dir, "index.db");
    this.indexPath = path.join(dir, "index.json");
    this.#ingestDir = path.join(dir, "ingest");
  }

  /**
   * Makes what is missing; false when the disk is too full for that, and it may be tried again later. The directory is
   * for its owner only: private images are in it.
   */
  async prepare(): Promise<boolean> {
    if (this.#prepared) return true;
    try {
      await fs.mkdir(this.dir, { recursive: true, mode: 0o700 });
      for (const algorithm of ALGORITHMS) await fs.mkdir(this.#blobDir(algorithm), { recursive: true });
      await fs.mkdir(this.#ingestDir, { recursive: true });
      await this.#writeIfMissing("oci-layout", { imageLayoutVersion: "1.0.0" });
      await this.#writeIfMissing("index.json", {
        schemaVersion: 2,
        mediaType: MEDIA_TYPES.ociIndex,
        manifests: [],
      });
      this.#prepared = true;
    } catch (error) {
      if (!isDiskFull(error)) throw error;
    }
    return this.#prepared;
  }

  async #writeIfMissing(name: string, json: object): Promise<void> {
    const target = path.join(this.dir, name);
    try {
      if ((await fs.stat(target)).size > 0) return;
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
    await this.replace(target, JSON.stringify(json));
  }

  #blobDir(algorithm: DigestAlgorithm): string {
    return path.join(this.dir, "blobs", algorithm);
  }

  blobPath(digest: Digest): string {
    return path.join(this.#blobDir(algorithmOf(digest)), hexOf(digest));
  }

  /** A name nobody else uses, on the same file system as the blobs. */
  temporaryPath(prefix: string): string {
    return path.join(this.#ingestDir, `${prefix}-${randomUUID()}`);
  }

  /** Removes what an earlier process left half-done. Only while no other process uses the directory. */
  async emptyIngest(): Promise<void> {
    for (const { name } of await entriesOf(this.#ingestDir)) {
      await fs.rm(path.join(this.#ingestDir, name), { recursive: true, force: true });
    }
  }

  /** Digests that have a file. No stat, no hashing: this is on the way to Ready. */
  async digests(): Promise<Set<Digest>> {
    const found = new Set<Digest>();
    for (const algorithm of ALGORITHMS) {
      for (const entry of await entriesOf(this.#blobDir(algorithm))) {
        const digest = `${algorithm}:${entry.name}`;
        if (entry.isFile() && isDigest(digest)) found.add(digest);
      }
    }
    return found;
  }

  /**
   * Moves a finished file to its blob's name. Its data must be on disk already; the name is when this resolves. A rename
   * replaces atomically, so at any moment there is the whole blob under the name or none.
   */
  async publish(temporary: string, digest: Digest): Promise<void> {
    const target = this.blobPath(digest);
    await fs.rename(temporary, target);
    await this.#syncDir(path.dirname(target));
  }

  /**
   * Takes a file away from its blob's name, when it still is the one with this inode (any, when undefined). First out of
   * the name, then off the disk: unlinking a large file takes its time.
   */
  async discard(digest: Digest, inode?: number): Promise<void> {
    const from = this.blobPath(digest);
    try {
      if (inode !== undefined && (await fs.stat(from)).ino !== inode) return;
      const away = this.temporaryPath("removed");
      await fs.rename(from, away);
      await fs.unlink(away);
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
  }

  /** Atomically replaces a small file of the layout. */
  async replace(target: string, text: string): Promise<void> {
    const temporary = this.temporaryPath(path.basename(target));
    try {
      await fs.writeFile(temporary, text, { flush: true, flag: "wx" });
      await fs.rename(temporary, target);
    } catch (error) {
      await fs.rm(temporary, { force: true });
      throw error;
    }
  }

  /** Free and total bytes of the file system, as an ordinary user sees them. */
  async space(): Promise<{ free: number; total: number }> {
    const stats = await fs.statfs(this.dir);
    return { free: stats.bavail * stats.bsize, total: stats.blocks * stats.bsize };
  }

  /** fsync of a directory, one run for all who ask while another run is under way. */
  #syncDir(dir: string): Promise<void> {
    const state = this.#syncing.get(dir);
    if (state === undefined) {
      const running = syncDir(dir).finally(() => this.#syncing.delete(dir));
      this.#syncing.set(dir, { running, next: undefined });
      return running;
    }
    // The one under way may have begun before our rename: wait for it, then for the next.
    state.next ??= state.running.catch(() => undefined).then(() => this.#syncDir(dir));
    return state.next;
  }
}

/** What is in a directory; nothing, when a full disk kept it from being made. */
async function entriesOf(dir: string): Promise<Dirent[]> {
  try {
    return await fs.readdir(dir, { withFileTypes: true });
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
}

async function syncDir(dir: string): Promise<void> {
  const handle = await fs.open(dir, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
