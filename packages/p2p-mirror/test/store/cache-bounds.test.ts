import fs from "node:fs/promises";
import t, { type Test } from "tap";
import { digestOf, type Digest } from "@p2p-mirror/shared";
import type { ContentEvent } from "../../src/store/content-store.ts";
import { seededBytes } from "../conformance/seeded.ts";
import { until } from "../../../../test/rig/until.ts";
import { blobPath, describeBytes, HUB, runCache, store, type RunningCache } from "./cache-fixture.ts";

const KIB = 1024;
const GHCR = { registry: "ghcr.io", repository: "org/app" };
const QUAY = { registry: "quay.io", repository: "org/app" };

const blob = (name: string, size = 100 * KIB): Buffer => seededBytes(name, size);

async function heldOf(cache: RunningCache, blobs: readonly Buffer[]): Promise<boolean[]> {
  const held = await Promise.all(
    blobs.map(async (one) => (await cache.store.stat(digestOf(one))) !== undefined),
  );
  // What the index says and what lies on disk must be one thing.
  for (const [nth, one] of blobs.entries()) {
    const onDisk = await fs.stat(blobPath(cache.dir, digestOf(one))).then(
      () => true,
      () => false,
    );
    if (onDisk !== held[nth]) throw new Error(`blob ${nth}: in the index ${held[nth]}, on disk ${onDisk}`);
  }
  return held;
}

async function use(cache: RunningCache, bytes: Buffer): Promise<void> {
  await (await cache.store.read(digestOf(bytes), { start: 0, end: bytes.length }))?.toArray();
}

await t.test("over its size, the cache drops what was used longest ago", async (t) => {
  let clock = 1_000;
  const cache = await runCache(t, { size: 350 * KIB }, { now: () => clock });
  const [a, b, c, d] = [blob("a"), blob("b"), blob("c"), blob("d")];
  const events: ContentEvent[] = [];
  for (const one of [a, b, c]) {
    clock += 1_000;
    await store(cache, one);
  }
  cache.store.watch((event) => events.push(event));
  clock += 1_000;
  await use(cache, a);
  t.ok(await store(cache, d));
  t.same(await heldOf(cache, [a, b, c, d]), [true, false, true, true], "b went: a was used since");
  t.same(
    events.map((event) => event.kind),
    ["removed", "added"],
  );
  t.equal(await cache.metric('evictions_total{reason="size"}'), 1);
  t.equal(await cache.metric("bytes"), 300 * KIB);
  t.same(cache.usage(), { bytes: 300 * KIB, blobs: 3, limit: 350 * KIB });
});

await t.test("uses are remembered over a restart", async (t) => {
  let clock = 1_000;
  const before = await runCache(t, { size: 350 * KIB }, { now: () => ++clock });
  const [a, b, c, d] = [blob("a"), blob("b"), blob("c"), blob("d")];
  for (const one of [a, b, c]) await store(before, one);
  await use(before, a);
  const cache = await before.restart();
  await store(cache, d);
  t.same(await heldOf(cache, [a, b, c, d]), [true, false, true, true]);
});

await t.test("a blob that can never fit is not kept, and nothing is thrown away for it", async (t) => {
  const cache = await runCache(t, { size: 250 * KIB });
  const [a, b] = [blob("a"), blob("b")];
  await store(cache, a);
  await store(cache, b);
  t.notOk(await store(cache, blob("huge", 251 * KIB)));
  t.same(await heldOf(cache, [a, b]), [true, true]);
  t.equal(await cache.metric('ingest_failures_total{reason="no_room"}'), 1);
});

await t.test("room promised to ingests under way counts, until they are done or given up", async (t) => {
  const cache = await runCache(t, { size: 250 * KIB });
  const [a, b, c] = [blob("a"), blob("b"), blob("c")];
  const first = await cache.store.ingest(describeBytes(a), HUB);
  const second = await cache.store.ingest(describeBytes(b), HUB);
  t.ok(first && second);
  t.notOk(await store(cache, c), "no room for a third");
  await second?.release();
  await second?.release();
  const third = await cache.store.ingest(describeBytes(c), HUB);
  t.ok(third, "what was given up made room, once");
  t.notOk(await store(cache, b));
  await first?.release();
  await third?.release();
});

await t.test(
  "blobs that containerd holds too go first, and a containerd that is silent holds nothing up",
  async (t) => {
    const [a, b, c, d, e] = [blob("a"), blob("b"), blob("c"), blob("d"), blob("e")];
    const elsewhere = new Set<Digest>([digestOf(c)]);
    let silent = false;
    const cache = await runCache(
      t,
      { size: 350 * KIB },
      {
        heldElsewhere: (digest) =>
          silent ? new Promise(() => undefined) : Promise.resolve(elsewhere.has(digest)),
      },
    );
    for (const one of [a, b, c, d]) await store(cache, one);
    t.same(await heldOf(cache, [a, b, c, d]), [true, true, false, true], "c, although it was the newest");
    silent = true;
    await store(cache, e);
    t.same(await heldOf(cache, [a, b, d, e]), [false, true, true, true], "then the oldest");
  },
);

await t.test("a registry has bounds of its own, and does not evict others", async (t) => {
  const cache = await runCache(t, { registries: new Map([["ghcr.io", { size: 250 * KIB }]]) });
  const [hub, first, second, third] = [blob("hub"), blob("g1"), blob("g2"), blob("g3")];
  await store(cache, hub, HUB);
  for (const one of [first, second, third]) await store(cache, one, GHCR);
  t.same(await heldOf(cache, [hub, first, second, third]), [true, false, true, true]);
  t.equal(await cache.metric('evictions_total{reason="registry_size"}'), 1);
  t.notOk(await store(cache, blob("huge", 251 * KIB), GHCR), "larger than the registry may have");
  t.ok(await store(cache, blob("huge", 251 * KIB), HUB), "but others may");
});

await t.test("a blob that two registries gave stays when one of them loses its claim", async (t) => {
  const cache = await runCache(t, { registries: new Map([["ghcr.io", { size: 150 * KIB }]]) });
  const [shared, next] = [blob("shared"), blob("next")];
  await store(cache, shared, GHCR);
  await store(cache, shared, HUB);
  t.same(cache.origins(digestOf(shared)), [HUB, GHCR]);
  await store(cache, next, GHCR);
  t.same(await heldOf(cache, [shared, next]), [true, true]);
  t.same(cache.origins(digestOf(shared)), [HUB]);
});

await t.test("nothing is kept of a registry that is off, nor of any with a size of 0", async (t) => {
  const cache = await runCache(t, { registries: new Map([["ghcr.io", { off: true }]]) });
  const bytes = blob("off");
  const events: unknown[] = [];
  cache.store.watch((event) => events.push(event));
  t.notOk(await store(cache, bytes, GHCR));
  await cache.store.put(describeBytes(bytes), bytes, GHCR);
  t.equal(await cache.store.stat(digestOf(bytes)), undefined);
  t.same(events, []);
  const none = await runCache(t, { size: 0 });
  t.notOk(await store(none, bytes));
  t.equal(await none.metric('ingest_failures_total{reason="no_room"}'), 0, "that is no failure");
});

await t.test("what is not kept has a file for as long as it takes, and readers of it", async (t) => {
  const dir = t.testdir();
  const cache = await runCache(t, { dir, registries: new Map([["ghcr.io", { off: true }]]) });
  const bytes = blob("off");
  const ingest = await cache.store.ingest(describeBytes(bytes), GHCR);
  t.equal(ingest?.keeps, false);
  await ingest?.file.write(bytes, 0, bytes.byteLength, 0);
  await ingest?.commit();
  const found = await ingest?.file.read(Buffer.alloc(bytes.byteLength), 0, bytes.byteLength, 0);
  t.ok(found?.buffer.equals(bytes), "it is there after its commit");
  await ingest?.release();
  const left = await fs.readdir(dir, { recursive: true });
  t.notOk(
    left.some((name) => name.includes(digestOf(bytes).slice(7)) || name.includes("ingest-")),
    `nothing of it is left: ${left.join(", ")}`,
  );
});

/** A cache whose GHCR blobs live for 1,000 ms, on a clock and with an upstream that the test holds. */
async function withTtl(t: Test): Promise<{ cache: RunningCache; state: { clock: number; up: boolean } }> {
  const state = { clock: 10_000, up: true };
  const cache = await runCache(
    t,
    {
      registries: new Map([
        ["ghcr.io", { ttlMs: 1_000 }],
        ["quay.io", { ttlMs: 5_000 }],
      ]),
    },
    { now: () => state.clock, reachable: () => state.up },
  );
  await cache.upkeep();
  return { cache, state };
}

await t.test("a TTL runs from the last use, for its registry only", async (t) => {
  const { cache, state } = await withTtl(t);
  const [used, unused, hub] = [blob("used"), blob("unused"), blob("hub")];
  await store(cache, used, GHCR);
  await store(cache, unused, GHCR);
  await store(cache, hub, HUB);
  state.clock += 900;
  await use(cache, used);
  await cache.store.stat(digestOf(unused));
  state.clock += 101;
  await cache.upkeep();
  t.same(await heldOf(cache, [used, unused, hub]), [true, false, true], "looking at a blob is no use of it");
  t.equal(await cache.metric('evictions_total{reason="ttl"}'), 1);
  state.clock += 100_000;
  await cache.upkeep();
  t.same(await heldOf(cache, [used, hub]), [false, true]);
});

await t.test(
  "time with upstream unreachable does not count against a TTL, not over a restart either",
  async (t) => {
    const before = await withTtl(t);
    const { state } = before;
    const bytes = blob("outage");
    await store(before.cache, bytes, GHCR);
    state.clock += 600;
    await before.cache.upkeep();
    state.up = false;
    for (let round = 0; round < 50; round++) {
      state.clock += 30_000;
      await before.cache.upkeep();
    }
    t.same(await heldOf(before.cache, [bytes]), [true], "held through 25 minutes of outage");
    const cache = await before.cache.restart();
    await cache.upkeep();
    state.up = true;
    state.clock += 300;
    await cache.upkeep();
    t.same(await heldOf(cache, [bytes]), [true], "900 ms of 1,000 have counted");
    state.clock += 101;
    await cache.upkeep();
    t.same(await heldOf(cache, [bytes]), [false], "now all of them");
  },
);

await t.test("a blob of two registries lives as long as the longer TTL says", async (t) => {
  const { cache, state } = await withTtl(t);
  const bytes = blob("both");
  await store(cache, bytes, GHCR);
  await store(cache, bytes, QUAY);
  state.clock += 1_001;
  await cache.upkeep();
  t.same(await heldOf(cache, [bytes]), [true]);
  t.same(cache.origins(digestOf(bytes)), [QUAY]);
  state.clock += 4_000;
  await cache.upkeep();
  t.same(await heldOf(cache, [bytes]), [false]);
});

await t.test("a bound that was lowered is enforced after the next start", async (t) => {
  const before = await runCache(t);
  const blobs = ["a", "b", "c"].map((name) => blob(name));
  for (const one of blobs) await store(before, one);
  const cache = await before.restart({ size: 150 * KIB });
  await until("within the bound", () => cache.usage().bytes <= 150 * KIB);
  t.same(await heldOf(cache, blobs), [false, false, true]);
});

await t.test("what is evicted while it is read is read to its end", async (t) => {
  const cache = await runCache(t, { size: 3 * 1024 * KIB });
  const bytes = blob("read", 2 * 1024 * KIB);
  await store(cache, bytes);
  const stream = await cache.store.read(digestOf(bytes), { start: 0, end: bytes.length });
  await store(cache, blob("next", 2 * 1024 * KIB));
  t.same(await heldOf(cache, [bytes]), [false]);
  t.ok(Buffer.concat((await stream?.toArray()) ?? []).equals(bytes));
});
