/** Small objects in a crowd: once across the uplink, for nobody later than each for itself. */
import t, { type Test } from "tap";
import { pause } from "../../src/transfer/patience.ts";
import { seeded } from "../swarm/rig.ts";
import { SmallCrowd, type SmallCrowdOptions } from "./small-crowd.ts";

const UPSTREAM_MS = 100;
const { signal } = new AbortController();

const objectOf = (nth: number | string): Buffer => Buffer.from(`object ${nth}`);

type Options = Omit<SmallCrowdOptions, "upstream">;

/** Upstream answers everybody after `UPSTREAM_MS`. */
async function crowdOf(t: Test, options: Options): Promise<SmallCrowd> {
  const crowd: SmallCrowd = await SmallCrowd.of(t, {
    ...options,
    upstream: async (_nth, bytes, signal) => {
      await pause(UPSTREAM_MS, crowd.clock, signal);
      return bytes;
    },
  });
  return crowd;
}

await t.test("a lone node asks upstream at once", async (t) => {
  const crowd = await crowdOf(t, { nodes: 1 });
  const took = await crowd.all(objectOf(1), crowd.nodes);
  t.same(
    crowd.requests.map(({ at }) => at),
    [0],
  );
  t.same(took, [UPSTREAM_MS]);
});

await t.test("one node of many asks upstream when its coordinator has answered", async (t) => {
  const crowd = await crowdOf(t, { nodes: 8 });
  for (let nth = 0; nth < 8; nth += 1) {
    const bytes = objectOf(nth);
    const began = crowd.now;
    const { nth: coordinator } = crowd.coordinatorOf(bytes);
    await crowd.all(bytes, [crowd.node(nth)]);
    // To open a stream there and back, to join there and back.
    const expected = coordinator === nth ? 0 : 4;
    t.equal((crowd.requests.at(-1)?.at ?? Infinity) - began, expected);
  }
});

for (const nodes of [2, 5, 8, 20, 50]) {
  await t.test(`${nodes} nodes at once: upstream is asked once`, async (t) => {
    const crowd = await crowdOf(t, { nodes, seed: nodes });
    for (let nth = 0; nth < 3; nth += 1) {
      const took = await crowd.all(objectOf(nth), crowd.nodes);
      t.equal(crowd.requests.length, nth + 1);
      const last = Math.max(...took.map((ms) => ms ?? Infinity));
      t.comment(`the last of ${nodes} has it after ${last} ms`);
      t.ok(last <= UPSTREAM_MS + 50, `${last} ms`);
    }
  });
}

await t.test("an image of five objects on eight nodes, many times: nobody waits for long", async (t) => {
  const lateness: number[] = [];
  let requests = 0;
  const runs = 15;
  for (let seed = 1; seed <= runs; seed += 1) {
    const random = seeded(seed);
    const latencies = new Map<string, number>();
    const latency = (from: string, to: string): number => {
      const key = [from, to].toSorted().join();
      const known = latencies.get(key) ?? 0.2 + 5 * random();
      latencies.set(key, known);
      return known;
    };
    const crowd = await crowdOf(t, { nodes: 8, seed, latency });
    const all = crowd.nodes.map(async ({ nth }) => {
      await pause(50 * random(), crowd.clock, signal);
      const began = crowd.now;
      for (const name of ["index", "manifest"]) await crowd.get(nth, objectOf(`${seed} ${name}`));
      const rest = ["config", "layer 1", "layer 2"].map((name) =>
        crowd.get(nth, objectOf(`${seed} ${name}`)),
      );
      await Promise.all(rest);
      lateness.push(crowd.now - began - 3 * UPSTREAM_MS);
    });
    let over = 0;
    for (const one of all) void one.finally(() => (over += 1));
    await crowd.clock.run(60_000, () => over === all.length);
    requests += crowd.requests.length;
    await crowd.close();
  }
  t.equal(lateness.length, 8 * runs, "all have all");
  lateness.sort((a, b) => a - b);
  const at = (share: number): string =>
    (lateness[Math.floor(share * (lateness.length - 1))] ?? NaN).toFixed(0);
  t.comment(
    `later than each for itself, ms: median ${at(0.5)}, 95 % ${at(0.95)}, 99 % ${at(0.99)}, most ${at(1)}`,
  );
  t.comment(`${requests} requests, each for itself ${runs * 40}`);
  t.equal(requests, runs * 5);
  t.ok((lateness.at(-1) ?? Infinity) < 200);
});

await t.test("who comes later gets it from the nodes, also before it can be looked up", async (t) => {
  const crowd = await crowdOf(t, { nodes: 8 });
  const bytes = objectOf(1);
  for (const node of crowd.nodes) {
    const [took] = await crowd.all(bytes, [node]);
    if (node.nth > 0) t.ok((took ?? Infinity) < 20, `${took} ms`);
  }
  t.equal(crowd.requests.length, 1);
});
