import { BlockPool, heldMsOf, RateLimit } from "@p2p-mirror/shared";
import t from "tap";
import { MemoryContent, newBlob, newClient, read, startServer } from "./rig.ts";

const MIB = 1024 * 1024;
const RATE = 8 * MIB;
const blobs = Array.from({ length: 3 }, () => newBlob(6 * MIB));

/** Fetches all blobs at once; seconds until each was there. */
async function fetchAll(
  test: { teardown(fn: () => Promise<void>): void },
  limits: { readonly in?: RateLimit; readonly out?: RateLimit },
): Promise<number[]> {
  const content = new MemoryContent(...blobs);
  // More than one turn, and not a multiple of it: what is left of a chunk waits.
  content.chunkBytes = 300_000;
  const { peer } = await startServer(test, content, {}, { limit: limits.out });
  const blocks = new BlockPool({ partBytes: limits.in?.quantum });
  const { client } = await newClient(test, {}, { limit: limits.in, blocks });
  const started = performance.now();
  return Promise.all(
    blobs.map(async ({ digest, bytes }) => {
      const answer = await client.blob(peer, digest, undefined);
      if (!(await read(answer.body)).equals(bytes)) throw new Error("other bytes");
      return (performance.now() - started) / 1000;
    }),
  );
}

await t.test("a limit holds for all bodies together, in either direction, and they share it", async (t) => {
  for (const direction of ["in", "out"] as const) {
    const limit = new RateLimit(RATE);
    const seconds = await fetchAll(t, { [direction]: limit });
    const last = Math.max(...seconds);
    const rate = (blobs.length * 6 * MIB) / last;
    // A busy machine may be slower than the limit; that the limit itself is reached, a virtual clock shows.
    t.ok(rate <= RATE * 1.15 && rate >= RATE * 0.25, `${direction}: ${rate} bytes per second`);
    t.ok(Math.min(...seconds) > last * 0.6, `${direction}: they end together, at ${seconds.join(", ")}`);
    t.equal(limit.held, 0);
  }
});

await t.test("whoever waits for a turn is not taken for a peer that is stuck", async (t) => {
  const small = Array.from({ length: 24 }, () => newBlob(128 * 1024));
  const limit = new RateLimit(512 * 1024);
  const { peer } = await startServer(t, new MemoryContent(...small), { uploadSlots: 32 });
  const blocks = new BlockPool({ partBytes: limit.quantum });
  const { client } = await newClient(
    t,
    { connectionsPerPeer: 32, dialTimeoutMs: 20_000, stallMs: 300 },
    { limit, blocks },
  );
  let longestRound = 0;
  const held = await Promise.all(
    small.map(async ({ digest, bytes }) => {
      const { body } = await client.blob(peer, digest, undefined);
      body.on("data", () => (longestRound = Math.max(longestRound, limit.roundMs)));
      t.ok((await read(body)).equals(bytes));
      return heldMsOf(body);
    }),
  );
  t.ok(held.filter((ms) => ms > 600).length > 12, `held up for ${held.join(", ")} ms`);
  t.ok(longestRound > 400, `turns were ${longestRound} ms apart`);
});

await t.test(
  "a short body passes between long ones, and a limit that is far too low refuses some",
  async (t) => {
    const [long, short] = [newBlob(4 * MIB), newBlob(20_000)];
    const limit = new RateLimit(512 * 1024);
    const { peer } = await startServer(t, new MemoryContent(long, short), { uploadSlots: 16 }, { limit });
    const { client } = await newClient(t, { connectionsPerPeer: 64, dialTimeoutMs: 20_000 });
    const abort = new AbortController();
    const options = { signal: abort.signal };
    const range = { start: 0, end: MIB };
    const held = await Promise.all(
      Array.from({ length: 6 }, () => client.blob(peer, long.digest, undefined, options)),
    );
    for (const { body } of held) body.resume();
    const started = performance.now();
    const answer = await client.blob(peer, short.digest, undefined);
    t.ok((await read(answer.body)).equals(short.bytes));
    t.ok(performance.now() - started < 3_000, "the long ones take 48 s");
    const asked: Promise<unknown>[] = [];
    for (let nth = 0; nth < 40; nth += 1)
      asked.push(client.blob(peer, long.digest, range, options).then(({ body }) => body.resume()));
    const refused = (await Promise.allSettled(asked)).filter(({ status }) => status === "rejected");
    t.ok(refused.length > 0 && refused.length < 40, `${refused.length} are told to ask others`);
    abort.abort();
  },
);
