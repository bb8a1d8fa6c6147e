import { buffer } from "node:stream/consumers";
import { digestOf, silentLogger, systemClock, type Descriptor } from "@p2p-mirror/shared";
import { Registry } from "prom-client";
import t, { type Test } from "tap";
import type { BlobCache } from "../../src/store/blob-cache.ts";
import { Flights } from "../../src/transfer/flights.ts";
import { createTransferMetrics } from "../../src/transfer/metrics.ts";
import { runCache } from "../store/cache-fixture.ts";
import { MIB, whole } from "./flying.ts";
import { ScriptedFinder, ScriptedSource, seededBytes } from "./scripted-source.ts";

const SEED = Number(process.env["TEST_SEED"] ?? Date.now() % 1e9);
t.comment(`seed ${SEED} (TEST_SEED)`);
const never = new AbortController().signal;
const ORIGIN = { registry: "registry", repository: "repo" };

/** A real cache; of `size` 0 it keeps nothing. */
const cacheOf = async (t: Test, size: number): Promise<BlobCache> => (await runCache(t, { size })).store;

async function flightsOf(
  t: Test,
  cache: BlobCache,
  upstream: ScriptedSource,
  peers: ScriptedSource[] = [],
): Promise<Flights> {
  const flights = new Flights({
    cache,
    finder: new ScriptedFinder(upstream, peers),
    clock: systemClock,
    logger: silentLogger(),
    metrics: createTransferMetrics(new Registry()),
  });
  t.teardown(() => flights.close());
  return flights;
}

const blobOf = (bytes: Buffer): Descriptor => ({
  digest: digestOf(bytes),
  size: bytes.length,
  mediaType: "application/octet-stream",
});

await t.test("requests of the same moment share one flight, and upstream is asked once", async (t) => {
  const bytes = seededBytes(3 * MIB, SEED);
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream" });
  const flights = await flightsOf(t, await cacheOf(t, 2 ** 30), upstream);
  const all = await Promise.all([1, 2, 3, 4].map(() => flights.get(blobOf(bytes), ORIGIN, 0)));
  t.equal(new Set(all).size, 1);
  const bodies = await Promise.all(all.map((flight) => buffer(flight.open(whole(bytes), never))));
  t.ok(bodies.every((body) => body.equals(bytes)));
  t.equal(upstream.requests.length, 1);
});

await t.test(
  "no room for any of it: who comes when the window has moved on gets a flight of its own",
  async (t) => {
    const bytes = seededBytes(100 * MIB, SEED + 1);
    const upstream = new ScriptedSource("up", { bytes, kind: "upstream" });
    // All of the disk is to be left free.
    const { store } = await runCache(t, { minFree: { fraction: 1 } });
    const flights = await flightsOf(t, store, upstream);
    const first = await flights.get(blobOf(bytes), ORIGIN, 0);
    const body = first.open(whole(bytes), never);
    let seen = 0;
    const moved = Promise.withResolvers<void>();
    const reading = (async () => {
      for await (const chunk of body) {
        seen += Buffer.isBuffer(chunk) ? chunk.length : 0;
        if (seen > 40 * MIB) moved.resolve();
      }
    })();
    await moved.promise;
    t.notOk(first.canServe(whole(bytes)));
    const second = await flights.get(blobOf(bytes), ORIGIN, 0);
    t.not(second, first);
    t.ok((await buffer(second.open(whole(bytes), never))).equals(bytes));
    await reading;
    t.equal(seen, bytes.length, "and the first one goes on");
  },
);

await t.test("what is not kept has room on the disk until its digest is known", async (t) => {
  const bytes = seededBytes(80 * MIB, SEED + 5);
  const wrong = Buffer.from(bytes);
  wrong.writeUInt8(wrong.readUInt8(MIB) ^ 1, MIB);
  const liar = new ScriptedSource("liar", { bytes: wrong });
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream" });
  const cache = await cacheOf(t, 0);
  const flights = await flightsOf(t, cache, upstream, [liar]);
  const flight = await flights.get(blobOf(bytes), ORIGIN, 0);
  t.ok((await buffer(flight.open(whole(bytes), never))).equals(bytes));
  await flight.done;
  t.equal(liar.refutations, 1);
  await flight.closed;
  t.equal(await cache.stat(digestOf(bytes)), undefined, "and it is not kept");
});

await t.test("a flight that failed is no flight: the next request begins anew", async (t) => {
  const bytes = seededBytes(2 * MIB, SEED + 2);
  const wrong = Buffer.from(bytes);
  wrong.writeUInt8(wrong.readUInt8(MIB) ^ 1, MIB);
  const bad = new ScriptedSource("up", { bytes: wrong, kind: "upstream" });
  const cache = await cacheOf(t, 2 ** 30);
  const finder = new ScriptedFinder(bad);
  const flights = new Flights({
    cache,
    finder,
    clock: systemClock,
    logger: silentLogger(),
    metrics: createTransferMetrics(new Registry()),
  });
  t.teardown(() => flights.close());
  const failed = await flights.get(blobOf(bytes), ORIGIN, 0);
  await t.rejects(buffer(failed.open(whole(bytes), never)), { code: "DIGEST_MISMATCH" });
  finder.upstreamSource = new ScriptedSource("up", { bytes, kind: "upstream" });
  const next = await flights.get(blobOf(bytes), ORIGIN, 0);
  t.ok((await buffer(next.open(whole(bytes), never))).equals(bytes));
  await next.done;
  t.same(await cache.stat(digestOf(bytes)), { digest: digestOf(bytes), size: bytes.length });
});

await t.test("a size that no layer has is declined, without a map of its pieces", async (t) => {
  const upstream = new ScriptedSource("up", { bytes: seededBytes(1, SEED), kind: "upstream" });
  const flights = await flightsOf(t, await cacheOf(t, 2 ** 30), upstream);
  const blob = { ...blobOf(seededBytes(1, SEED)), size: Number.MAX_SAFE_INTEGER };
  await t.rejects(flights.get(blob, ORIGIN, 0), { code: "BLOB_UNKNOWN" });
  t.equal(upstream.requests.length, 0);
});
