import fs from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { pino } from "pino";
import { Registry } from "prom-client";
import type { Test } from "tap";
import {
  algorithmOf,
  digestOf,
  hexOf,
  MEDIA_TYPES,
  parseManifest,
  silentLogger,
  type Descriptor,
  type Digest,
  type Repository,
} from "@p2p-mirror/shared";
import {
  createCache,
  type Cache,
  type CacheDeps,
  type CacheOptions,
} from "../../src/store/cache/create-cache.ts";
import { createStoreMetrics } from "../../src/store/metrics.ts";
import { seededBytes } from "../conformance/seeded.ts";

export const HUB: Repository = { registry: "docker.io", repository: "library/test" };

export const describeBytes = (
  bytes: Uint8Array,
  mediaType: string = MEDIA_TYPES.octetStream,
): Descriptor => ({
  digest: digestOf(bytes),
  size: bytes.byteLength,
  mediaType,
});

export const blobPath = (dir: string, digest: Digest): string =>
  path.join(dir, "blobs", algorithmOf(digest), hexOf(digest));

export async function temporaryDir(t: Test): Promise<string> {
  const dir = await fs.mkdtemp(path.join(tmpdir(), "p2p-mirror-cache-"));
  t.teardown(() => fs.rm(dir, { recursive: true, force: true }));
  return dir;
}

export interface RunningCache extends Cache {
  readonly dir: string;
  /** The value of a metric, by its name without `p2p_mirror_cache_`, with labels as they are printed. */
  metric(name: string): Promise<number>;
  /** Closes this one and starts another on the same directory. */
  restart(options?: Partial<CacheOptions>): Promise<RunningCache>;
}

/** A started cache in a directory of its own, closed at the end of the test. */
export async function runCache(
  t: Test,
  options: Partial<CacheOptions> = {},
  deps: Partial<CacheDeps> = {},
): Promise<RunningCache> {
  const dir = options.dir ?? (await temporaryDir(t));
  const registry = new Registry();
  const cache = createCache(
    { size: 2 ** 30, minFree: { bytes: 0 }, registries: new Map(), ...options, dir },
    { logger: silentLogger(), metrics: createStoreMetrics(registry), ...deps },
  );
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => (closing ??= cache.close());
  t.teardown(close);
  await cache.start(new AbortController().signal);
  return {
    ...cache,
    dir,
    close,
    async metric(name) {
      const line = (await registry.metrics())
        .split("\n")
        .find((one) => one.startsWith(`p2p_mirror_cache_${name} `));
      return Number(line?.split(" ").at(-1));
    },
    async restart(changed = {}) {
      await close();
      return runCache(t, { ...options, ...changed, dir }, deps);
    },
  };
}

/** Stores bytes the way a flight does: ingest, write, commit, release. False when the cache did not want them. */
export async function store(
  cache: Cache,
  bytes: Uint8Array,
  origin = HUB,
  digest = digestOf(bytes),
): Promise<boolean> {
  const descriptor = { digest, size: bytes.byteLength, mediaType: MEDIA_TYPES.octetStream };
  const ingest = await cache.store.ingest(descriptor, origin);
  if (ingest === undefined) return false;
  try {
    await ingest.file.write(bytes, 0, bytes.byteLength, 0);
    await ingest.commit();
    return ingest.keeps;
  } finally {
    await ingest.release();
  }
}

/** Log lines of level warn and above. */
export function warnings(): { logger: pino.Logger; lines: string[] } {
  const lines: string[] = [];
  return { lines, logger: pino({ level: "warn" }, { write: (line: string) => void lines.push(line) }) };
}

/** An image of one layer with a tag, as a pull leaves it. */
export async function storeImage(
  cache: RunningCache,
  tag: string,
): Promise<{ layer: Buffer; manifest: Buffer }> {
  const layer = seededBytes(`layer of ${tag}`, 10_000);
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.ociManifest,
      config: { ...describeBytes(Buffer.from("{}"), "application/vnd.oci.image.config.v1+json") },
      layers: [describeBytes(layer, "application/vnd.oci.image.layer.v1.tar+gzip")],
    }),
  );
  const descriptor = describeBytes(manifest, MEDIA_TYPES.ociManifest);
  await store(cache, layer);
  await cache.store.put(descriptor, manifest, HUB);
  cache.catalog.learnManifest(descriptor, parseManifest(manifest), HUB);
  cache.catalog.rememberTag({ ...HUB, tag, descriptor, resolvedAt: 1_700_000_000_000 });
  return { layer, manifest };
}
