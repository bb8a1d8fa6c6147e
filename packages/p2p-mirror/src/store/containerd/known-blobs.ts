import type { Digest } from "@p2p-mirror/shared";
import type { ContentEvent, StoredBlob } from "../content-store.ts";

/** `createdAt` tells whether a blob that is there again is the one we knew; undefined when an event did not say. */
export interface KnownBlob extends StoredBlob {
  readonly createdAt: string | undefined;
}

/**
 * What containerd holds as far as this process knows, with the listeners that follow it. Blobs that were found corrupt
 * are condemned: they count as not held until containerd has dropped them and got them again.
 */
export class KnownBlobs {
  readonly #held = new Map<Digest, KnownBlob>();
  readonly #condemned = new Map<Digest, string | undefined>();
  readonly #listeners = new Set<(event: ContentEvent) => void>();
  readonly #onGone: (digest: Digest) => void;
  /** What changed while a list was on its way: of these the list may be behind. */
  #touched: Set<Digest> | undefined;
  #silent = false;

  /** `onGone` hears of each blob that is not held any more, whether listeners are told or not. */
  constructor(onGone: (digest: Digest) => void = () => undefined) {
    this.#onGone = onGone;
  }

  get size(): number {
    return this.#held.size;
  }

  get(digest: Digest): KnownBlob | undefined {
    return this.#held.get(digest);
  }

  all(): KnownBlob[] {
    return [...this.#held.values()];
  }

  /** False when the blob is condemned. */
  add(blob: KnownBlob): boolean {
    this.#touched?.add(blob.digest);
    if (!this.#admits(blob)) return false;
    const before = this.#held.get(blob.digest);
    if (before?.createdAt !== undefined && blob.createdAt === undefined) return true;
    // It went and came back between two looks: what was verified of it counts no more.
    if (before?.createdAt !== undefined && before.createdAt !== blob.createdAt) this.#onGone(blob.digest);
    this.#held.set(blob.digest, blob);
    if (before === undefined) this.#tell({ kind: "added", blob: { digest: blob.digest, size: blob.size } });
    return true;
  }

  remove(digest: Digest): void {
    this.#touched?.add(digest);
    this.#condemned.delete(digest);
    this.#drop(digest);
  }

  /** Its bytes are wrong: from now on it is not held. False when that was known. */
  condemn(digest: Digest): boolean {
    if (this.#condemned.has(digest)) return false;
    this.#touched?.add(digest);
    this.#condemned.set(digest, this.#held.get(digest)?.createdAt);
    this.#drop(digest);
    return true;
  }

  /**
   * Makes this what `list` yields, and tells the listeners of each difference; of nothing when `silent`. When the list
   * fails half-way nothing is taken for removed. Only one at a time.
   */
  async reconcile(list: AsyncIterable<KnownBlob>, silent: boolean): Promise<void> {
    const touched = new Set<Digest>();
    this.#touched = touched;
    const found = new Map<Digest, KnownBlob>();
    try {
      for await (const blob of list) found.set(blob.digest, blob);
    } finally {
      this.#touched = undefined;
    }
    this.#silent = silent;
    for (const digest of [...this.#held.keys(), ...this.#condemned.keys()]) {
      if (!found.has(digest) && !touched.has(digest)) this.remove(digest);
    }
    for (const blob of found.values()) if (!touched.has(blob.digest)) this.add(blob);
    this.#silent = false;
  }

  watch(listener: (event: ContentEvent) => void): () => void {
    // The same function may be registered twice; each registration ends by itself.
    const own = (event: ContentEvent): void => listener(event);
    this.#listeners.add(own);
    return () => void this.#listeners.delete(own);
  }

  /** Tells the listeners to list again. */
  reset(): void {
    this.#tell({ kind: "reset" });
  }

  /** A condemned blob stays so until it shows another time of creation. */
  #admits(blob: KnownBlob): boolean {
    if (!this.#condemned.has(blob.digest)) return true;
    const createdAt = this.#condemned.get(blob.digest);
    if (createdAt === undefined) {
      this.#condemned.set(blob.digest, blob.createdAt);
      return false;
    }
    if (blob.createdAt === undefined || blob.createdAt === createdAt) return false;
    this.#condemned.delete(blob.digest);
    return true;
  }

  #drop(digest: Digest): void {
    if (!this.#held.delete(digest)) return;
    this.#onGone(digest);
    this.#tell({ kind: "removed", digest });
  }

  #tell(event: ContentEvent): void {
    if (this.#silent) return;
    for (const listener of this.#listeners) listener(event);
  }
}
