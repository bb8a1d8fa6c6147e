import { Counter, Gauge, type Registry } from "prom-client";
import type { EvictionReason } from "./cache/evictor.ts";

const EVICTION_REASONS: readonly EvictionReason[] = ["size", "free_space", "registry_size", "ttl"];
const INGEST_FAILURES = ["no_room", "disk_full", "io"] as const;
export type IngestFailure = (typeof INGEST_FAILURES)[number];

export interface StoreMetrics {
  readonly bytes: { set(value: number): void };
  readonly blobs: { set(value: number): void };
  readonly limitBytes: { set(value: number): void };
  evicted(reason: EvictionReason, bytes: number): void;
  readonly corrupt: { inc(): void };
  readonly diskFull: { inc(): void };
  ingestFailed(reason: IngestFailure): void;
  readonly indexErrors: { inc(): void };
  readonly scrubbedBytes: { inc(bytes: number): void };
}

/** Metrics of the mirror's own store. All labels are from fixed sets. */
export function createStoreMetrics(registry: Registry): StoreMetrics {
  const registers = [registry];
  const evictions = new Counter({
    name: "p2p_mirror_cache_evictions_total",
    help: "Blobs removed from the cache to keep its bounds.",
    labelNames: ["reason"] as const,
    registers,
  });
  const evictedBytes = new Counter({
    name: "p2p_mirror_cache_evicted_bytes_total",
    help: "Bytes removed from the cache to keep its bounds.",
    labelNames: ["reason"] as const,
    registers,
  });
  const ingestFailures = new Counter({
    name: "p2p_mirror_cache_ingest_failures_total",
    help: "Blobs that were to be stored and could not be.",
    labelNames: ["reason"] as const,
    registers,
  });
  // A series that only appears with its first event hides that event from `rate()`.
  for (const reason of EVICTION_REASONS) {
    evictions.inc({ reason }, 0);
    evictedBytes.inc({ reason }, 0);
  }
  for (const reason of INGEST_FAILURES) ingestFailures.inc({ reason }, 0);
  return {
    bytes: new Gauge({ name: "p2p_mirror_cache_bytes", help: "Bytes of the blobs in the cache.", registers }),
    blobs: new Gauge({ name: "p2p_mirror_cache_blobs", help: "Blobs in the cache.", registers }),
    limitBytes: new Gauge({
      name: "p2p_mirror_cache_limit_bytes",
      help: "Bytes the blobs in the cache may take (--cache-size).",
      registers,
    }),
    evicted(reason, bytes) {
      evictions.inc({ reason });
      evictedBytes.inc({ reason }, bytes);
    },
    corrupt: new Counter({
      name: "p2p_mirror_cache_corrupt_total",
      help: "Files in the cache found wrong or unreadable, and removed.",
      registers,
    }),
    diskFull: new Counter({
      name: "p2p_mirror_cache_disk_full_total",
      help: "Writes to the cache that met a full disk or an exhausted quota.",
      registers,
    }),
    ingestFailed: (reason) => ingestFailures.inc({ reason }),
    indexErrors: new Counter({
      name: "p2p_mirror_cache_index_errors_total",
      help: "Statements the cache's SQLite index did not carry out.",
      registers,
    }),
    scrubbedBytes: new Counter({
      name: "p2p_mirror_cache_scrubbed_bytes_total",
      help: "Bytes hashed by the background scrub.",
      registers,
    }),
  };
}
