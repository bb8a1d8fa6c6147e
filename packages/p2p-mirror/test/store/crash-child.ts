/**
 * Works on a cache without pause until it is killed. Says on stdout, before going on, what from then on must be true:
 * `added DIGEST`, `removed DIGEST`, `tagged TAG DIGEST`.
 * Arguments: directory, seed. Without any it ends at once: its modules are then in the compile cache for the others.
 */
import { writeSync } from "node:fs";
import { digestOf, MEDIA_TYPES, silentLogger } from "@p2p-mirror/shared";
import { createCache } from "../../src/store/cache/create-cache.ts";
import { seededBytes, seededNumbers } from "../conformance/seeded.ts";
import { quietMetrics } from "./quiet-metrics.ts";

const [dir, seed] = process.argv.slice(2);
if (dir === undefined || seed === undefined) process.exit(0);

const random = seededNumbers(seed);

/** Blocks until the line is out: a busy parent leaves the pipe full, and nothing may be done before it is said. */
function say(line: string): void {
  for (;;) {
    try {
      writeSync(1, `${line}\n`);
      return;
    } catch (error) {
      if (!(error instanceof Error && "code" in error && error.code === "EAGAIN")) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
    }
  }
}

const origin = { registry: "registry.test", repository: "crash/test" };

say("starting");
const cache = createCache(
  // Small, so that nearly every ingest evicts.
  { dir, size: 1024 * 1024, minFree: { bytes: 0 }, registries: new Map() },
  { logger: silentLogger(), metrics: quietMetrics() },
);
cache.store.watch((event) => {
  if (event.kind === "added") say(`added ${event.blob.digest}`);
  if (event.kind === "removed") say(`removed ${event.digest}`);
});
await cache.start(new AbortController().signal);
say("started");

async function work(): Promise<void> {
  for (;;) {
    // Of 200 blobs, so that some come again while they are held, evicted or under way.
    const nth = random(200);
    const bytes = seededBytes(`blob ${nth}`, 1 + nth * 500);
    const descriptor = { digest: digestOf(bytes), size: bytes.length, mediaType: MEDIA_TYPES.ociManifest };
    const choice = random(10);
    if (choice < 5) {
      const ingest = await cache.store.ingest(descriptor, origin);
      if (ingest === undefined) continue;
      const half = bytes.length >> 1;
      await ingest.file.write(bytes, half, bytes.length - half, half);
      await ingest.file.write(bytes, 0, half, 0);
      if (choice !== 0) await ingest.commit();
      await ingest.release();
    } else if (choice < 8) {
      await cache.store.put(descriptor, bytes, origin);
      const tag = `t${random(20)}`;
      cache.catalog.rememberTag({ ...origin, tag, descriptor, resolvedAt: Date.now() });
      say(`tagged ${tag} ${descriptor.digest}`);
    } else {
      const stream = await cache.store.read(descriptor.digest, { start: 0, end: bytes.length });
      await stream?.toArray();
    }
  }
}
await Promise.all([work(), work(), work()]);
