import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import t from "tap";
import { digestOf, IntegrityError } from "@p2p-mirror/shared";
import { createCache } from "../../src/store/cache/create-cache.ts";
import { CacheInUseError } from "../../src/store/cache/index-db.ts";
import { seededBytes } from "../conformance/seeded.ts";
import { until } from "../../../../test/rig/until.ts";
import { readLayout } from "./layout-reader.ts";
import { quietMetrics } from "./quiet-metrics.ts";
import { blobPath, describeBytes, HUB, runCache, store, storeImage, warnings } from "./cache-fixture.ts";

const MIB = 1024 * 1024;

async function flip(file: string, at: number): Promise<void> {
  const bytes = await fs.readFile(file);
  bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
  await fs.writeFile(file, bytes);
}

await t.test("a wrong blob found on read is gone from disk, counted, and can be stored again", async (t) => {
  const before = await runCache(t, { scrub: { bytesPerSecond: 1 } });
  const bytes = seededBytes("wrong", 2 * MIB);
  const digest = digestOf(bytes);
  await store(before, bytes);
  await flip(blobPath(before.dir, digest), MIB);
  const cache = await before.restart();
  const readers = await Promise.all([
    cache.store.read(digest, { start: 0, end: bytes.length }),
    cache.store.read(digest, { start: 0, end: bytes.length }),
  ]);
  t.same(readers, [undefined, undefined], "known before the first byte: it is not held");
  t.equal(await cache.store.stat(digest), undefined);
  t.equal(await cache.metric("corrupt_total"), 1, "two readers, one corrupt file");
  t.ok(await store(cache, bytes));
  const again = await cache.store.read(digest, { start: 0, end: bytes.length });
  t.ok(Buffer.concat((await again?.toArray()) ?? []).equals(bytes));
  await cache.close();
  t.same(await fs.readdir(path.join(cache.dir, "ingest")), []);
});

await t.test("a verdict on an old file does not remove the right one that has replaced it", async (t) => {
  const before = await runCache(t, { scrub: { bytesPerSecond: 1 } });
  const bytes = seededBytes("replaced", 2 * MIB);
  const digest = digestOf(bytes);
  await store(before, bytes);
  await flip(blobPath(before.dir, digest), 5);
  const cache = await before.restart({ verifyFirstBytes: 0 });
  const stream = await cache.store.read(digest, { start: 0, end: bytes.length });
  await store(cache, bytes);
  await t.rejects(
    Promise.resolve(stream?.toArray()).then(() => undefined),
    IntegrityError,
  );
  t.same(await cache.store.stat(digest), { digest, size: bytes.length }, "the new one stays");
  t.ok(await cache.recheck(digest), "and is right");
  t.equal(await cache.metric("corrupt_total"), 0);
});

await t.test("a file that somebody deleted or cut is noticed by stat and read", async (t) => {
  const cache = await runCache(t);
  const blobs = ["deleted", "cut", "deleted too"].map((name) => seededBytes(name, 5000));
  const [deleted = "", cut = "", other = ""] = blobs.map((bytes) => blobPath(cache.dir, digestOf(bytes)));
  for (const bytes of blobs) await store(cache, bytes);
  await fs.rm(deleted);
  await fs.truncate(cut, 100);
  await fs.rm(other);
  const range = { start: 0, end: 5000 };
  t.equal(await cache.store.stat(digestOf(seededBytes("deleted", 5000))), undefined);
  t.equal(await cache.store.stat(digestOf(seededBytes("cut", 5000))), undefined);
  t.equal(await cache.store.read(digestOf(seededBytes("deleted too", 5000)), range), undefined);
  t.same(cache.usage(), { bytes: 0, blobs: 0, limit: 2 ** 30 });
  t.equal(await cache.metric("corrupt_total"), 1);
});

await t.test("a peer's complaint makes the blob be hashed again", async (t) => {
  const cache = await runCache(t);
  const bytes = seededBytes("complaint", 5000);
  await store(cache, bytes);
  t.ok(await cache.recheck(digestOf(bytes)));
  await flip(blobPath(cache.dir, digestOf(bytes)), 7);
  t.notOk(await cache.recheck(digestOf(bytes)));
  t.equal(await cache.store.stat(digestOf(bytes)), undefined);
});

await t.test("the scrub finds a rotten blob that nobody reads", async (t) => {
  const before = await runCache(t);
  const blobs = ["a", "b", "c"].map((name) => seededBytes(name, 100_000));
  for (const bytes of blobs) await store(before, bytes);
  const rotten = blobs[1] ?? Buffer.alloc(0);
  await flip(blobPath(before.dir, digestOf(rotten)), 99_999);
  // Everything is due at once, and the rate is no brake.
  const cache = await before.restart({ scrub: { bytesPerSecond: 100 * MIB, intervalMs: -1 } });
  await until("the rotten one is out", () => cache.usage().blobs === 2);
  t.equal(await cache.store.stat(digestOf(rotten)), undefined);
  await until("all were hashed", async () => (await cache.metric("scrubbed_bytes_total")) >= 300_000);
  t.equal(await cache.metric("corrupt_total"), 1);
});

await t.test("a second process is kept out of the directory, and does not touch it", async (t) => {
  const cache = await runCache(t);
  await storeImage(cache, "v1");
  await until("index.json is written", async () => (await readLayout(cache.dir)).manifests.length === 1);
  const ingest = await cache.store.ingest(describeBytes(Buffer.from("under way")), HUB);
  t.teardown(() => ingest?.release());
  const second = createCache(
    { dir: cache.dir, size: 1, minFree: { bytes: 0 }, registries: new Map() },
    { logger: warnings().logger, metrics: quietMetrics() },
  );
  await t.rejects(second.start(new AbortController().signal), CacheInUseError);
  await second.close();
  const child = spawn(
    process.execPath,
    [
      "--conditions=@p2p-mirror/source",
      fileURLToPath(new URL("crash-child.ts", import.meta.url)),
      cache.dir,
      "x",
    ],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  let complaint = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => (complaint += text));
  await once(child, "close");
  t.match(complaint, "CACHE_IN_USE");
  t.equal(
    (await fs.readdir(path.join(cache.dir, "ingest"))).length,
    1,
    "the ingest under way is still there",
  );
  t.equal((await readLayout(cache.dir)).manifests.length, 1, "and so is the list of images");
});

await t.test("many ingests of the same blob at once: all commit, one blob, one event", async (t) => {
  const cache = await runCache(t);
  const bytes = seededBytes("same", 300_000);
  let added = 0;
  cache.store.watch((event) => (added += event.kind === "added" ? 1 : 0));
  const results = await Promise.all(Array.from({ length: 10 }, () => store(cache, bytes)));
  t.ok(results.every(Boolean));
  t.equal(added, 1);
  t.same(cache.usage(), { bytes: 300_000, blobs: 1, limit: 2 ** 30 });
  t.ok(await cache.recheck(digestOf(bytes)));
});

await t.test("an ingest whose file has not the announced size is refused", async (t) => {
  const cache = await runCache(t);
  const bytes = seededBytes("size", 1000);
  const ingest = await cache.store.ingest(describeBytes(bytes), HUB);
  await ingest?.file.write(bytes, 0, 1000, 1);
  await t.rejects(ingest?.commit() ?? Promise.resolve(), IntegrityError);
  await ingest?.release();
  await t.rejects(ingest?.commit() ?? Promise.resolve());
  t.equal(await cache.store.stat(digestOf(bytes)), undefined);
  t.same(await fs.readdir(path.join(cache.dir, "ingest")), []);
});

await t.test("bytes that are not what their digest says are never stored by put", async (t) => {
  const cache = await runCache(t);
  const descriptor = describeBytes(Buffer.from("right"));
  await cache.store.put(descriptor, Buffer.from("wrong"), HUB);
  t.equal(await cache.store.stat(descriptor.digest), undefined);
});

await t.test("a flight's readers go on reading its file after the commit", async (t) => {
  const cache = await runCache(t);
  const bytes = seededBytes("readers", 1000);
  const ingest = await cache.store.ingest(describeBytes(bytes), HUB);
  await ingest?.file.write(bytes, 0, 1000, 0);
  await ingest?.commit();
  const { bytesRead, buffer } = (await ingest?.file.read(Buffer.alloc(1000), 0, 1000, 0)) ?? {};
  t.equal(bytesRead, 1000);
  t.ok(buffer?.equals(bytes));
  await ingest?.release();
});

await t.test("a thousand blobs are open at once: the start hashes nothing and reads no file", async (t) => {
  const before = await runCache(t);
  const { dir } = before;
  await before.close();
  for (let nth = 0; nth < 1000; nth++) {
    const bytes = seededBytes(`${nth}`, 2000);
    await fs.writeFile(blobPath(dir, digestOf(bytes)), bytes);
  }
  await (await before.restart()).close();
  const started = performance.now();
  const cache = await runCache(t, { dir });
  const ms = performance.now() - started;
  t.equal(cache.usage().blobs, 1000);
  t.comment(`start with 1,000 blobs: ${ms.toFixed(1)} ms`);
  t.ok(ms < 1000, "far from the two seconds to Ready");
});
