import fs from "node:fs/promises";
import { digestOf, silentLogger, type Digest } from "@p2p-mirror/shared";
import { Registry } from "prom-client";
import t, { type Test } from "tap";
import { createAdvertiser, type AdvertiserOptions } from "../../src/routing/advertiser.ts";
import { MemoryMesh } from "../../src/routing/memory-router.ts";
import { createRoutingMetrics } from "../../src/routing/metrics.ts";
import type { Router, RoutingKey } from "../../src/routing/router.ts";
import type { ContentStore } from "../../src/store/content-store.ts";
import { findAll } from "../conformance/router.ts";
import { until } from "../../../../test/rig/until.ts";
import { blobPath, runCache, store } from "../store/cache-fixture.ts";

const bytesOf = (text: string): Buffer => Buffer.from(`blob ${text}`);
const digestOfText = (text: string): Digest => digestOf(bytesOf(text));

/** An advertiser over real caches, and another node that looks for what it says. */
async function scene(t: Test, stores: readonly ContentStore[], options: AdvertiserOptions = {}) {
  const mesh = new MemoryMesh();
  const self = mesh.join({ id: "self", host: "10.0.0.1", port: 1 });
  const other = mesh.join({ id: "other", host: "10.0.0.2", port: 1 });
  const calls: { readonly kind: "advertise" | "withdraw"; readonly keys: readonly RoutingKey[] }[] = [];
  const router: Pick<Router, "advertise" | "withdraw"> = {
    advertise: (keys) => {
      calls.push({ kind: "advertise", keys });
      return self.advertise(keys);
    },
    withdraw: (keys) => {
      calls.push({ kind: "withdraw", keys });
      return self.withdraw(keys);
    },
  };
  const advertiser = createAdvertiser(
    { stores, router, logger: silentLogger(), metrics: createRoutingMetrics(new Registry()) },
    options,
  );
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => (closing ??= advertiser.close());
  t.teardown(close);
  await advertiser.start(new AbortController().signal);
  const isFound = async (text: string): Promise<boolean> =>
    (await findAll(other, digestOfText(text))).length > 0;
  return { calls, close, isFound };
}

/** A store that can be made to fail and to stay silent, over a real one. */
function troubled(store: ContentStore) {
  const trouble = { list: false, watch: false };
  const wrapped: ContentStore = {
    name: store.name,
    stat: (digest, options) => store.stat(digest, options),
    read: (digest, range, options) => store.read(digest, range, options),
    async *list(options) {
      for await (const blob of store.list(options)) {
        yield blob;
        if (trouble.list) throw new Error("the store went away");
      }
    },
    watch: (listener) => store.watch((event) => void (trouble.watch || listener(event))),
  };
  return { trouble, wrapped };
}

await t.test("what the stores hold at the start is said, and what completes later within 2 s", async (t) => {
  const cache = await runCache(t);
  for (let i = 0; i < 20; i += 1) await store(cache, bytesOf(`early ${i}`));
  const { isFound, calls } = await scene(t, [cache.store]);
  for (let i = 0; i < 20; i += 1) await until(`early ${i} is said`, () => isFound(`early ${i}`));
  t.equal(calls.length, 1, "in one call");
  for (let i = 0; i < 10; i += 1) await store(cache, bytesOf(`late ${i}`));
  await until("the last one is said", async () => isFound("late 9"), { timeoutMs: 2_000 });
  for (let i = 0; i < 10; i += 1) t.ok(await isFound(`late ${i}`), `late ${i}`);
  t.ok(calls.length < 6, "what completes together is said together");
});

await t.test("what is removed is taken back, unless another store has it", async (t) => {
  const [one, two] = [await runCache(t), await runCache(t)];
  await Promise.all([store(one, bytesOf("here and there")), store(two, bytesOf("here and there"))]);
  await store(one, bytesOf("here only"));
  const { isFound, calls } = await scene(t, [one.store, two.store], { batchMs: 10 });
  await until("both are said", async () => (await isFound("here only")) && (await isFound("here and there")));
  for (const text of ["here and there", "here only"]) {
    await fs.rm(blobPath(one.dir, digestOfText(text)));
    await one.store.stat(digestOfText(text));
  }
  await until("the one that is gone is taken back", async () => !(await isFound("here only")));
  t.ok(await isFound("here and there"));
  t.notOk(
    calls.some(({ kind, keys }) => kind === "withdraw" && keys.includes(digestOfText("here and there"))),
  );
});

await t.test("what no event told is found out by listing again", async (t) => {
  const cache = await runCache(t);
  const { trouble, wrapped } = troubled(cache.store);
  await store(cache, bytesOf("stays"));
  await store(cache, bytesOf("goes"));
  const { isFound } = await scene(t, [wrapped], { reconcileMs: 50 });
  await until("both are said", async () => (await isFound("stays")) && (await isFound("goes")));
  trouble.watch = true;
  await store(cache, bytesOf("comes"));
  await fs.rm(blobPath(cache.dir, digestOfText("goes")));
  await cache.store.stat(digestOfText("goes"));
  await until("both changes are found out", async () => (await isFound("comes")) && !(await isFound("goes")));
  t.ok(await isFound("stays"));
});

await t.test("a store that cannot be listed takes nothing back, and is listed again soon", async (t) => {
  const cache = await runCache(t);
  const { trouble, wrapped } = troubled(cache.store);
  for (const text of ["a", "b", "c"]) await store(cache, bytesOf(text));
  const { isFound, calls } = await scene(t, [wrapped], { reconcileMs: 40 });
  await until("all are said", async () => isFound("c"));
  trouble.list = true;
  const seen = calls.length;
  await store(cache, bytesOf("d"));
  await until("events still count", async () => isFound("d"));
  trouble.list = false;
  trouble.watch = true;
  await store(cache, bytesOf("e"));
  await until("listed again", async () => isFound("e"));
  for (const text of ["a", "b", "c", "d", "e"]) t.ok(await isFound(text), text);
  t.strictSame(
    calls.slice(seen).filter(({ kind }) => kind === "withdraw"),
    [],
  );
});

await t.test("at the end everything is taken back, and nothing is said any more", async (t) => {
  const cache = await runCache(t);
  await store(cache, bytesOf("one"));
  const { isFound, close, calls } = await scene(t, [cache.store], { batchMs: 1, reconcileMs: 5 });
  await until("it is said", async () => isFound("one"));
  await close();
  t.notOk(await isFound("one"));
  const seen = calls.length;
  await store(cache, bytesOf("two"));
  await cache.upkeep();
  t.equal(calls.length, seen);
});
