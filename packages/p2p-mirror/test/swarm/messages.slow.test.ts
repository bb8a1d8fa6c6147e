import t from "tap";
import { Crowd } from "./crowd.ts";
import { MIB, Rig } from "./rig.ts";

/** Messages that each node sends for one blob, on average, and the most of any node but the coordinator. */
async function count(nodes: number): Promise<{ mean: number; most: number; kinds: string }> {
  const rig = await new Rig({ nodes, size: 256 * MIB, encoded: false, seed: nodes }).start();
  // 100 Mbit for all to upstream, 200 between nodes: 21 s.
  const crowd = new Crowd(rig, { upstream: { rate: 12 * MIB }, nodeRate: 24 * MIB });
  for (const node of rig.nodes) crowd.start(node);
  t.not(await crowd.run(120_000), undefined, "all finish");
  const kinds = new Map<string, number>();
  for (const sent of rig.network.traffic.values()) {
    for (const [kind, times] of sent) kinds.set(kind, (kinds.get(kind) ?? 0) + times);
  }
  const [coordinator, ...others] = rig.ranked();
  const result = {
    mean: rig.network.sent() / nodes,
    most: Math.max(...others.map(({ id }) => rig.network.sent(id))),
    kinds: [...kinds].map(([kind, times]) => `${kind} ${(times / nodes).toFixed(1)}`).join(", "),
  };
  t.comment(
    `${nodes} nodes: ${result.mean.toFixed(0)} messages each (${result.kinds}), at most ${result.most}, ` +
      `the coordinator ${rig.network.sent(coordinator?.id)}`,
  );
  await rig.close();
  return result;
}

await t.test("messages per node and blob do not grow with the number of nodes", async (t) => {
  const few = await count(30);
  const many = await count(100);
  for (const { mean, most } of [few, many]) {
    t.ok(mean <= 600, `${mean.toFixed(0)} on average`);
    t.ok(most <= 1_000, `${most} at most`);
  }
  t.ok(
    many.mean <= few.mean * 1.5,
    `three times the nodes: ${(many.mean / few.mean).toFixed(2)} times the messages`,
  );
});
