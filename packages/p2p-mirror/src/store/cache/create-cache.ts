import type { Logger, Digest, Repository, Service } from "@p2p-mirror/shared";
import type { BlobCache } from "../blob-cache.ts";
import type { Catalog } from "../catalog.ts";
import type { StoreMetrics } from "../metrics.ts";
import { BlobIndex } from "./blob-index.ts";
import { DiskCache } from "./disk-cache.ts";
import { Evictor } from "./evictor.ts";
import { Expiry } from "./expiry.ts";
import { IndexDb } from "./index-db.ts";
import { IndexFile } from "./index-file.ts";
import type { CacheLimits } from "./limits.ts";
import { OciLayout } from "./oci-layout.ts";
import { OutageLog } from "./outage-log.ts";
import { reconcile, restoreCatalog } from "./recovery.ts";
import { Scrubber, type ScrubOptions } from "./scrubber.ts";
import { SqliteCatalog } from "./sqlite-catalog.ts";
import { Upkeep } from "./upkeep.ts";

export interface CacheOptions extends CacheLimits {
  /** Directory of the OCI image layout; made when missing. Nobody else may write to it. */
  readonly dir: string;
  readonly scrub?: ScrubOptions | undefined;
  /** Up to this size a blob that was not hashed since the start is hashed before its first byte leaves. Default 64 MiB. */
  readonly verifyFirstBytes?: number | undefined;
}

export interface CacheDeps {
  readonly logger: Logger;
  readonly metrics: StoreMetrics;
  /** Whether containerd has the blob too, so that it goes first when room is needed. Errors and silence mean no. */
  readonly heldElsewhere?: ((digest: Digest) => Promise<boolean>) | undefined;
  /** Whether the registry answers these days; decides if its TTL runs. Default: always. */
  readonly reachable?: ((registry: string) => boolean) | undefined;
  /** Milliseconds since the epoch, default the system's clock. */
  readonly now?: (() => number) | undefined;
}

/** The mirror's own store. `store` and `catalog` may be used from the end of `start` to the begin of `close`. */
export interface Cache extends Service {
  readonly store: BlobCache;
  readonly catalog: Catalog;
  /** Bytes and blobs held, and the bound (`status` command). */
  usage(): { readonly bytes: number; readonly blobs: number; readonly limit: number };
  /** Repositories the bytes of a held blob came from. */
  origins(digest: Digest): Repository[];
  /** A peer got wrong bytes from here: hash the blob now. False when it was wrong, or is not held. */
  recheck(digest: Digest, signal?: AbortSignal): Promise<boolean>;
  /** One round of what else happens every 30 seconds: TTLs, bounds, writing down uses. */
  upkeep(): Promise<void>;
}

export function createCache(options: CacheOptions, deps: CacheDeps): Cache {
  const logger = deps.logger.child({ part: "cache" });
  const { metrics } = deps;
  const now = deps.now ?? Date.now;
  const layout = new OciLayout(options.dir);
  const db = new IndexDb(layout.databasePath, { logger, onError: () => metrics.indexErrors.inc() });
  const index = new BlobIndex(db);
  const outages = new OutageLog(db);
  const catalog = new SqliteCatalog({ db, index, now, onChange: () => indexFile.changed() });
  const indexFile = new IndexFile({
    layout,
    images: () => catalog.tryImages(),
    onSettled: () => db.flush(),
    logger,
  });
  const count = (): void => {
    metrics.bytes.set(index.bytes);
    metrics.blobs.set(index.count);
  };
  const store: DiskCache = new DiskCache({
    layout,
    index,
    logger,
    metrics,
    now,
    reserve: (size, registry) => evictor.reserve(size, registry),
    lend: (size) => evictor.lend(size),
    verifyFirstBytes: options.verifyFirstBytes,
    isOff: (registry) => options.size === 0 || options.registries.get(registry)?.off === true,
    onStored: (descriptor) => catalog.prove(descriptor),
    onChange: () => {
      count();
      indexFile.changed();
    },
  });
  const evictor = new Evictor(options, {
    index,
    space: () => layout.space(),
    unwritten: () => store.unwritten(),
    remove: (digest, reason) => store.evict(digest, reason),
    heldElsewhere: deps.heldElsewhere,
  });
  const expiry = new Expiry(options.registries, {
    index,
    outages,
    now,
    reachable: deps.reachable ?? (() => true),
    remove: (digest) => store.evict(digest, "ttl"),
  });
  const scrubber = new Scrubber(options.scrub ?? {}, {
    index,
    now,
    logger,
    onBytes: (bytes) => metrics.scrubbedBytes.inc(bytes),
    verify: (digest, how) => store.verify(digest, how),
  });
  const upkeep = new Upkeep({
    logger,
    tasks: [
      async () => {
        if (!(await db.repair())) return;
        index.saveAll();
        await restoreCatalog({ layout, index, catalog, logger });
      },
      () => expiry.sweep(),
      () => evictor.enforce(),
      () => catalog.prune(),
      () => index.saveUses(),
    ],
  });
  let started = false;
  return {
    name: "cache",
    store,
    catalog,
    usage: () => ({ bytes: index.bytes, blobs: index.count, limit: options.size }),
    origins: (digest) => index.origins(digest),
    recheck: (digest, signal) => store.verify(digest, { signal }),
    upkeep: () => upkeep.run(),
    async start(signal) {
      const prepared = await layout.prepare();
      const opened = await db.open({ diskFull: !prepared });
      // Only now: the open database says that no other process is at work here.
      if (opened !== "memory") await layout.emptyIngest();
      index.load();
      outages.load();
      await reconcile({ layout, index, catalog, logger });
      if (opened !== "kept") await restoreCatalog({ layout, index, catalog, logger });
      signal.throwIfAborted();
      started = true;
      metrics.limitBytes.set(options.size);
      count();
      indexFile.changed();
      upkeep.start();
      scrubber.start();
    },
    async close() {
      await scrubber.close();
      await upkeep.close();
      await store.close();
      // Not after a failed start: the directory may be another process's, and the index is not what is in it.
      if (started) await indexFile.close();
      if (started) index.saveUses();
      db.close();
    },
  };
}
