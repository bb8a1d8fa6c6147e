import { amountOf } from "@p2p-mirror/shared/config";
import { linkSignal, raceSignal, type Digest } from "@p2p-mirror/shared";
import type { BlobEntry, BlobIndex } from "./blob-index.ts";
import type { CacheLimits } from "./limits.ts";

/** Why a blob went; the `reason` label of the metrics. */
export type EvictionReason = "size" | "free_space" | "registry_size" | "ttl";

/** Room for the file of an ingest; given back when its blob is in the index, or when it failed. */
export interface Reservation {
  /** False: there is room on the disk for as long as it takes, and none in the cache. */
  readonly keeps: boolean;
  /** The file is there: what it still lacks is counted by `unwritten` from now on. */
  opened(): void;
  release(): void;
}

export interface EvictorDeps {
  readonly index: BlobIndex;
  /** Free and total bytes of the file system. */
  space(): Promise<{ free: number; total: number }>;
  /** Bytes of open ingests that their sparse files do not occupy yet. */
  unwritten(): Promise<number>;
  remove(digest: Digest, reason: EvictionReason): Promise<void>;
  /** Whether another store of this node (containerd) has the blob, so that losing it here costs nothing. */
  heldElsewhere?: ((digest: Digest) => Promise<boolean>) | undefined;
}

/**
 * Of the least recently used blobs this many are asked whether containerd holds them too: enough to spare what only this
 * cache holds, few enough that making room never waits for thousands of answers.
 */
const ASK_ELSEWHERE = 256;
/** Questions at the same time. */
const ASK_AT_ONCE = 32;
/** A containerd that does not answer must not hold up a pull. */
const ASK_PATIENCE_MS = 1_000;
/** Nor every pull: it is not asked again for so long. */
const ASK_PAUSE_MS = 30_000;

/** Keeps the cache within its bounds: total size, size per registry, free space of the file system. */
export class Evictor {
  readonly #limits: CacheLimits;
  readonly #deps: EvictorDeps;
  readonly #reservedOf = new Map<string, number>();
  #reserved = 0;
  /** Bytes that were granted to ingests without a file yet. */
  #unopened = 0;
  #askAgainAt = 0;
  #queue: Promise<unknown> = Promise.resolve();

  constructor(limits: CacheLimits, deps: EvictorDeps) {
    this.#limits = limits;
    this.#deps = deps;
  }

  /** Room for `size` more bytes of a registry, evicting what it takes; undefined when there cannot be any. */
  reserve(size: number, registry: string): Promise<Reservation | undefined> {
    return this.#exclusive(async () => {
      if (!(await this.#makeRoom(size, registry))) return undefined;
      this.#count(registry, size);
      return this.#grant(size, true, () => this.#count(registry, -size));
    });
  }

  /** Room on the disk for `size` bytes that will not be kept; nothing goes for them. */
  lend(size: number): Promise<Reservation | undefined> {
    return this.#exclusive(async () =>
      (await this.#short(size)) <= 0 ? this.#grant(size, false, () => undefined) : undefined,
    );
  }

  #grant(size: number, keeps: boolean, giveBack: () => void): Reservation {
    let [opened, released] = [false, false];
    this.#unopened += size;
    const grant: Reservation = {
      keeps,
      opened: () => {
        if (opened) return;
        opened = true;
        this.#unopened -= size;
      },
      release: () => {
        if (released) return;
        released = true;
        grant.opened();
        giveBack();
      },
    };
    return grant;
  }

  /** Brings the cache back within its bounds: others fill the disk too, and bounds change between starts. */
  enforce(): Promise<void> {
    return this.#exclusive(async () => {
      for (const registry of this.#limits.registries.keys()) await this.#makeRoom(0, registry);
      await this.#makeRoom(0, undefined);
    });
  }

  /** One at a time: two that look at the same free bytes would both take them. */
  #exclusive<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(task);
    this.#queue = result.catch(() => undefined);
    return result;
  }

  #count(registry: string, bytes: number): void {
    this.#reserved += bytes;
    this.#reservedOf.set(registry, (this.#reservedOf.get(registry) ?? 0) + bytes);
  }

  async #makeRoom(size: number, registry: string | undefined): Promise<boolean> {
    const { index } = this.#deps;
    // First what cannot work whatever is evicted: then nothing is.
    if (this.#reserved + size > this.#limits.size) return false;
    const own = registry === undefined ? undefined : this.#limits.registries.get(registry)?.size;
    if (registry !== undefined && own !== undefined) {
      const reserved = this.#reservedOf.get(registry) ?? 0;
      if (reserved + size > own) return false;
      const excess = (): number => index.bytesOf(registry) + reserved + size - own;
      await this.#evict("registry_size", excess, registry);
    }
    await this.#evict("size", () => index.bytes + this.#reserved + size - this.#limits.size);
    return this.#makeFree(size);
  }

  /** Bytes that the file system lacks for `size` more beside what it was promised and is to be left free. */
  async #short(size: number): Promise<number> {
    // Together with the look at the open files: one of these may become one of those meanwhile.
    const unopened = this.#unopened;
    const [{ free, total }, unwritten] = await Promise.all([this.#deps.space(), this.#deps.unwritten()]);
    return size + unopened + unwritten + amountOf(this.#limits.minFree, total) - free;
  }

  async #makeFree(size: number): Promise<boolean> {
    const { index } = this.#deps;
    const short = await this.#short(size);
    if (short <= 0) return true;
    // For the sake of an ingest that cannot fit anyway nothing is thrown away; to give others their space, all of it is.
    if (size > 0 && short > index.bytes) return false;
    // The file system is not asked again: blocks may come back late (open readers, a busy journal), and evicting on
    // until they do would empty the cache for nothing. The next look is the next ingest's.
    const target = Math.max(0, index.bytes - short);
    await this.#evict("free_space", () => index.bytes - target);
    return true;
  }

  /**
   * Removes least recently used blobs (of a registry) while `excess` is positive, those held elsewhere first. A blob that
   * other registries gave as well only loses this registry's claim.
   */
  async #evict(reason: EvictionReason, excess: () => number, registry?: string): Promise<void> {
    if (excess() <= 0) return;
    const candidates = [...this.#deps.index.entries()].filter(
      (entry) => registry === undefined || entry.registries.has(registry),
    );
    const elsewhere = await this.#heldElsewhere(candidates.slice(0, ASK_ELSEWHERE));
    for (const entry of [...elsewhere, ...candidates]) {
      if (excess() <= 0) return;
      // Gone, or used since: the one that is there now is another entry.
      if (this.#deps.index.get(entry.digest) !== entry) continue;
      if (registry !== undefined && entry.registries.size > 1) {
        this.#deps.index.unlink(entry.digest, registry);
      } else {
        await this.#deps.remove(entry.digest, reason);
      }
    }
  }

  async #heldElsewhere(entries: readonly BlobEntry[]): Promise<BlobEntry[]> {
    const { heldElsewhere } = this.#deps;
    if (heldElsewhere === undefined || performance.now() < this.#askAgainAt) return [];
    const held: BlobEntry[] = [];
    using patience = linkSignal([], ASK_PATIENCE_MS);
    for (let at = 0; at < entries.length && !patience.signal.aborted; at += ASK_AT_ONCE) {
      const some = entries.slice(at, at + ASK_AT_ONCE);
      const answers = await Promise.all(
        some.map((entry) => raceSignal(heldElsewhere(entry.digest), patience.signal).catch(() => false)),
      );
      held.push(...some.filter((_, nth) => answers[nth] === true));
    }
    if (patience.signal.aborted) this.#askAgainAt = performance.now() + ASK_PAUSE_MS;
    return held;
  }
}
