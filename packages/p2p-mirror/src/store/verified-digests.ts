import { LRUCache } from "lru-cache";
import type { Digest } from "@p2p-mirror/shared";

/** A digest that was forgotten is hashed again, nothing worse. */
const REMEMBERED = 65_536;

/**
 * Digests that this process has hashed and found right, the last `remember` that were asked for (default 65,536, some 10
 * MiB). Bounded by a sum of ones: with `max` a cache takes the room for all of them when it is made, 1.4 MiB each.
 */
export function verifiedDigests<V extends string | true>(remember: number = REMEMBERED): LRUCache<Digest, V> {
  return new LRUCache({ maxSize: remember, sizeCalculation: () => 1 });
}
