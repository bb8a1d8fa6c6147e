import t from "tap";
import { Crowd } from "./crowd.ts";
import { MIB, Rig } from "./rig.ts";

const UPSTREAM = { rate: 12 * MIB };
const NODE_RATE = 24 * MIB;

await t.test("the first to join has its lease within the answer, the others disjoint ones", async (t) => {
  const rig = await new Rig({ nodes: 8, size: 256 * MIB, latencyMs: 5 }).start();
  const crowd = new Crowd(rig, { upstream: UPSTREAM, nodeRate: NODE_RATE });
  const [coordinator, ...others] = rig.ranked();
  if (coordinator === undefined) throw new Error("no nodes");
  const own = crowd.start(coordinator);
  await rig.clock.run(0);
  t.match(own.member.leases, [{ first: 0, end: rig.geometry.count }], "its own coordinator: at once");
  t.match(own.member.coordinator, { id: coordinator.id, self: true });
  const began = rig.clock.now();
  for (const node of others) crowd.start(node);
  await rig.clock.run(200);
  // The protocol's negotiation there and back, the join there, the answer back.
  for (const { firstLeaseAt } of crowd.flights.slice(1)) t.equal((firstLeaseAt ?? Infinity) - began, 20);
  const runs = crowd.flights.flatMap(({ member }) => member.leases).toSorted((a, b) => a.first - b.first);
  t.ok(runs.length >= 8);
  for (const [nth, run] of runs.entries())
    t.ok((runs[nth - 1]?.end ?? 0) <= run.first, `run ${nth} is nobody else's`);
  for (const { member } of crowd.flights) t.equal(member.neighbours.length, 7);
  await rig.close();
});

for (const nodes of [1, 2, 3, 5, 8, 16, 32]) {
  await t.test(`${nodes} nodes at once: upstream gives every byte once, all finish`, async (t) => {
    const rig = await new Rig({ nodes, seed: nodes }).start();
    const crowd = new Crowd(rig, { upstream: UPSTREAM, nodeRate: NODE_RATE });
    for (const node of rig.nodes) crowd.start(node);
    const took = await crowd.run(120_000);
    if (took === undefined) throw new Error("not all have finished");
    const bound = (rig.size / UPSTREAM.rate) * 1_000;
    t.ok(crowd.amplification <= 1.02, `upstream bytes: ${crowd.amplification.toFixed(3)}`);
    t.ok(took <= bound * 1.35, `${(took / bound).toFixed(2)} of the bound, in this coarse model`);
    const sent = rig.network.sent() / nodes;
    t.comment(`${nodes} nodes: ${(took / bound).toFixed(2)} x bound, ${sent.toFixed(0)} messages a node`);
    t.ok(sent <= 600);
    await rig.close();
  });
}

for (const [name, rate, size] of [
  ["100 Mbit", 12 * MIB, 64 * MIB],
  ["1 Gbit", 118 * MIB, 512 * MIB],
] as const) {
  await t.test(
    `eight nodes that come one after the other over the whole pull, upstream ${name}`,
    async (t) => {
      const rig = await new Rig({ nodes: 8, size, seed: 50 }).start();
      const crowd = new Crowd(rig, { upstream: { rate }, nodeRate: 2 * rate });
      const began = rig.clock.now();
      const bound = (size / rate) * 1_000;
      const arrivals = new Map<string, number>();
      for (const [nth, node] of rig.nodes.entries()) {
        rig.clock.after((bound * nth) / 8, () => {
          arrivals.set(node.id, rig.clock.now());
          crowd.start(node);
        });
      }
      await rig.clock.run(bound);
      t.not(await crowd.run(120_000, began), undefined, "all finish");
      t.ok(crowd.amplification <= 1.05, `upstream ${crowd.amplification.toFixed(3)}`);
      for (const { node, completedAt } of crowd.flights) {
        const took = (completedAt ?? Infinity) - (arrivals.get(node.id) ?? 0);
        t.ok(
          took <= bound * 1.15,
          `${(took / bound).toFixed(2)} of what upstream takes for one, in this coarse model`,
        );
      }
      await rig.close();
    },
  );
}

/** What a run with this seed comes to. */
async function outcomeOf(seed: number): Promise<unknown> {
  const rig = await new Rig({ nodes: 12, size: 32 * MIB, seed, encoded: false }).start();
  const crowd = new Crowd(rig, { upstream: UPSTREAM, nodeRate: NODE_RATE });
  for (const node of rig.nodes) crowd.start(node);
  const took = await crowd.run(60_000);
  const traffic = rig.ranked().map(({ id }) => Object.fromEntries(rig.network.traffic.get(id) ?? []));
  await rig.close();
  return { took, traffic };
}

await t.test("the same seed makes the same run, message for message; another seed another", async (t) => {
  const first = await outcomeOf(3);
  t.same(await outcomeOf(3), first);
  t.notSame(await outcomeOf(4), first);
});
