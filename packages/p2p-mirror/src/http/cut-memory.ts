import type { Digest } from "@p2p-mirror/shared";
import { LRUCache } from "lru-cache";

/** More digests than a node can have in flight at once; an entry is some 200 bytes. */
const MAX_DIGESTS = 4096;

/**
 * Digests whose body was cut short just now. containerd resumes with a Range request at the first host again, and gives
 * the pull up after three resumes without progress there; a 404 to the resume sends it to the next host instead, with
 * the same Range (measured with 1.6, 1.7 and 2.1). Where not even a first byte came after the headers, its next request is as the
 * first one, and after four such it fails (`containerd.md`, 3.3): that one is declined, too.
 */
export class CutMemory {
  readonly #cut: LRUCache<Digest, { readonly empty: boolean }>;

  /** @param ttlMs how long a resume is declined; 30 s unless told */
  constructor(ttlMs = 30_000, now?: () => number) {
    this.#cut = new LRUCache({
      max: MAX_DIGESTS,
      ttl: ttlMs,
      ttlResolution: 0,
      ...(now === undefined ? {} : { perf: { now } }),
    });
  }

  /** `sent`: body bytes before the cut. */
  remember(digest: Digest, sent: number): void {
    this.#cut.set(digest, { empty: sent === 0 });
  }

  /** Whether a request for the body from `start` on is to be declined. */
  declines(digest: Digest, start: number): boolean {
    const cut = this.#cut.get(digest);
    return cut !== undefined && (start > 0 || cut.empty);
  }

  /** A whole body went through: the sources are good again. */
  forget(digest: Digest): void {
    this.#cut.delete(digest);
  }
}
