import type { Amount } from "@p2p-mirror/shared/config";

/** What a registry's blobs may do in the cache. Blobs of registries not listed have only the cache's own bounds. */
export interface RegistryLimits {
  /** Bytes its blobs may take, default: no bound of its own. */
  readonly size?: number | undefined;
  /** Milliseconds without use after which a blob goes, default: never. Time with upstream unreachable does not count. */
  readonly ttlMs?: number | undefined;
  /** Store nothing of this registry, default false. */
  readonly off?: boolean | undefined;
}

export interface CacheLimits {
  /** Bytes. */
  readonly size: number;
  /** Free space the cache leaves to others: bytes, or a part (0 to 1) of the file system it is on. */
  readonly minFree: Amount;
  readonly registries: ReadonlyMap<string, RegistryLimits>;
}
