/** The database beside the blobs is an index: lost, broken or closed to this user, it costs no blob. */
import fs from "node:fs/promises";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import t from "tap";
import { digestOf, MEDIA_TYPES, parseManifest } from "@p2p-mirror/shared";
import { createCache } from "../../src/store/cache/create-cache.ts";
import { seededBytes } from "../conformance/seeded.ts";
import { until } from "../../../../test/rig/until.ts";
import { readLayout } from "./layout-reader.ts";
import { quietMetrics } from "./quiet-metrics.ts";
import {
  blobPath,
  describeBytes,
  HUB,
  runCache,
  store,
  storeImage,
  temporaryDir,
  warnings,
} from "./cache-fixture.ts";

for (const [name, ruin] of [
  ["gone", (file: string) => fs.rm(file)],
  ["garbage", (file: string) => fs.writeFile(file, seededBytes("garbage", 50_000))],
  ["cut short", (file: string) => fs.truncate(file, 5_000)],
  ["overwritten in the middle", overwrite],
  ["of another version", setVersion],
] as const) {
  await t.test(`a database that is ${name} is rebuilt from the blobs`, async (t) => {
    const { logger, lines } = warnings();
    const before = await runCache(t, {}, { logger });
    const { layer, manifest } = await storeImage(before, "v1");
    for (let nth = 0; nth < 100; nth++) await store(before, seededBytes(`${nth}`, 10));
    await before.close();
    await ruin(path.join(before.dir, "index.db"));

    const cache = await before.restart();
    t.equal(cache.usage().blobs, 102);
    t.equal(lines.length, name === "gone" ? 0 : 1, "one line says so");
    const stream = await cache.store.read(digestOf(layer), { start: 0, end: layer.length });
    t.ok(Buffer.concat((await stream?.toArray()) ?? []).equals(layer));
    t.match(
      cache.catalog.images(),
      [
        {
          ...HUB,
          tag: "v1",
          descriptor: describeBytes(manifest, MEDIA_TYPES.ociManifest),
          resolvedAt: 1_700_000_000_000,
        },
      ],
      "tags come back from index.json, as old as they are",
    );
    t.same(
      cache.catalog.parentsOf(digestOf(layer)),
      [digestOf(manifest)],
      "and what manifests name from them",
    );
    await cache.close();
    t.equal(
      (await (await cache.restart()).store.stat(digestOf(layer)))?.size,
      layer.length,
      "and it is kept",
    );
    t.equal(lines.length, name === "gone" ? 0 : 1);
  });
}

await t.test("a tag that index.json gives no time or one of the future never wins", async (t) => {
  for (const [time, expected] of [
    [undefined, 0],
    ["yesterday", 0],
    ["2999-01-01T00:00:00.000Z", undefined],
  ] as const) {
    const before = await runCache(t);
    await storeImage(before, "v1");
    await before.close();
    const file = path.join(before.dir, "index.json");
    const old = (await fs.readFile(file, "utf8")).replace(
      /,"io\.p2p-mirror\.resolved-at":"[^"]*"/,
      time === undefined ? "" : `,"io.p2p-mirror.resolved-at":"${time}"`,
    );
    t.notMatch(old, "2023-11-14", "the time was there");
    await fs.writeFile(file, old);
    await fs.rm(path.join(before.dir, "index.db"));
    const cache = await before.restart();
    const resolvedAt = cache.catalog.tag(HUB, "v1")?.resolvedAt ?? NaN;
    t.ok(
      expected === undefined ? resolvedAt <= Date.now() : resolvedAt === expected,
      `${time}: ${resolvedAt}`,
    );
  }
});

await t.test("a tag of another node comes back from index.json as that node's word", async (t) => {
  const before = await runCache(t);
  await storeImage(before, "v1");
  const known = before.catalog.tag(HUB, "v1");
  if (known === undefined) throw new TypeError("stored");
  const heard = '{"claim":"…","peer":"…","signature":"…"}';
  before.catalog.rememberTag({ ...known, tag: "v2", heard });
  await before.close();
  await fs.rm(path.join(before.dir, "index.db"));
  const { catalog } = await before.restart();
  t.same(catalog.tag(HUB, "v1"), known);
  t.same(catalog.tag(HUB, "v2"), { ...known, tag: "v2", heard });
});

async function overwrite(file: string): Promise<void> {
  const bytes = await fs.readFile(file);
  bytes.fill(0xa5, 4096);
  await fs.writeFile(file, bytes);
}

// eslint-disable-next-line typescript/require-await
async function setVersion(file: string): Promise<void> {
  const db = new DatabaseSync(file);
  db.exec("PRAGMA user_version = 4711");
  db.close();
}

await t.test(
  "a database that breaks while in use is repaired, and nothing that is held is lost",
  async (t) => {
    const { logger, lines } = warnings();
    const cache = await runCache(t, {}, { logger });
    const { layer, manifest } = await storeImage(cache, "v1");
    // More than SQLite keeps in memory, so that it has to read what is broken.
    for (let nth = 0; nth < 10; nth++) {
      const children = Array.from({ length: 4000 }, (_, child) => ({
        digest: digestOf(Buffer.from(`${nth} ${child}`)),
        size: 1,
        mediaType: "application/x",
      }));
      const index = Buffer.from(`${nth}`);
      cache.catalog.learnManifest(
        describeBytes(index),
        { ...parseManifest(manifest), manifests: children },
        HUB,
      );
    }
    await until("index.json is written", async () => (await readLayout(cache.dir)).manifests.length === 1);
    for (const file of ["index.db", "index.db-wal"]) {
      await overwrite(path.join(cache.dir, file)).catch(() => undefined);
    }
    let at = 0;
    await until("the damage is met", async () => {
      cache.catalog.describe(digestOf(Buffer.from(`${at % 10} ${at}`)), HUB);
      at += 1;
      return (await cache.metric("index_errors_total")) > 0;
    });
    const errors = await cache.metric("index_errors_total");
    // A change while the index is broken must not cost index.json its tags: they are restored from it.
    await store(cache, seededBytes("meanwhile", 100));
    await until("it was tried", async () => (await cache.metric("index_errors_total")) > errors);
    await cache.upkeep();
    await store(cache, seededBytes("afterwards", 100));
    const again = await cache.restart();
    t.equal(again.usage().blobs, 4);
    t.match(again.catalog.images(), [{ tag: "v1" }]);
    t.same(await again.store.stat(digestOf(layer)), { digest: digestOf(layer), size: layer.length });
    t.ok(lines.length > 0 && lines.length < 5, `${lines.length} lines about it, not one for each statement`);
  },
);

await t.test(
  "files the index does not know are taken in, rows without a file go, strangers are left alone",
  async (t) => {
    const before = await runCache(t);
    const [kept, lost, found] = ["kept", "lost", "found"].map((name) => seededBytes(name, 3000));
    if (kept === undefined || lost === undefined || found === undefined) throw new Error("no blobs");
    await store(before, kept);
    await store(before, lost);
    await before.close();
    await fs.rm(blobPath(before.dir, digestOf(lost)));
    await fs.writeFile(blobPath(before.dir, digestOf(found)), found);
    await fs.writeFile(path.join(before.dir, "blobs/sha256/README"), "not a blob");
    await fs.symlink("/etc/hostname", path.join(before.dir, "blobs/sha256", "f".repeat(64)));
    await fs.writeFile(path.join(before.dir, "ingest/left-behind"), "half a blob");
    const cache = await before.restart();
    t.same(cache.usage(), { bytes: 6000, blobs: 2, limit: 2 ** 30 });
    const stream = await cache.store.read(digestOf(found), { start: 0, end: 3000 });
    t.ok(Buffer.concat((await stream?.toArray()) ?? []).equals(found));
    t.same(await fs.readdir(path.join(cache.dir, "ingest")), []);
  },
);

await t.test("an index that cannot be opened is named: SQLite does not say which file", async (t) => {
  const dir = await temporaryDir(t);
  const index = path.join(dir, "index.db");
  await fs.mkdir(index);
  const cache = createCache(
    { dir, size: 1, minFree: { bytes: 0 }, registries: new Map() },
    { logger: warnings().logger, metrics: quietMetrics() },
  );
  await t.rejects(cache.start(new AbortController().signal), { message: new RegExp(index) });
  await cache.close();
});
