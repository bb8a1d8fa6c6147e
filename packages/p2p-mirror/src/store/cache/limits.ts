/** What a registry's blobs may do in the cache. Blobs of registries not listed have only the cache's own bounds. */
export interface RegistryLimits {
  /** Bytes its blobs may take, default: no bound of its own. */
  readonly size?: number | undefined;
  /** Milliseconds without use after which a blob goes, default: never. Time with upstream unreachable does not count. */
  readonly ttlMs?: number | undefined;
  /** Store nothing of this registry, default false. */
  readonly off?: boolean | undefined;
}

/** Free space the cache leaves to others: bytes, or a part (0 to 1) of the file system it is on. */
export type MinFree = { readonly bytes: number } | { readonly fraction: number };

export interface CacheLimits {
  /** Bytes. */
  readonly size: number;
  readonly minFree: MinFree;
  readonly registries: ReadonlyMap<string, RegistryLimits>;
}

export const minFreeBytes = (minFree: MinFree, total: number): number =>
  "bytes" in minFree ? minFree.bytes : Math.ceil(minFree.fraction * total);
