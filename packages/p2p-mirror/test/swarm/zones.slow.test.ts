import t from "tap";
import { Crowd } from "./crowd.ts";
import { MIB, Rig } from "./rig.ts";

const SIZE = 128 * MIB;

/** A crowd in three zones. */
async function crowdOf(
  nodes: number,
  zonePatienceMs: number | undefined,
): Promise<{ rig: Rig; crowd: Crowd }> {
  const rig = await new Rig({
    nodes,
    size: SIZE,
    seed: 40 + nodes,
    zoneOf: (nth) => `zone ${nth % 3}`,
    encoded: false,
  }).start();
  const crowd = new Crowd(rig, {
    upstream: { rate: 12 * MIB },
    nodeRate: 24 * MIB,
    ...(zonePatienceMs !== undefined && { zonePatienceMs }),
  });
  for (const node of rig.nodes) crowd.start(node);
  return { rig, crowd };
}

await t.test("every piece is one member's of each zone to bring in", async (t) => {
  const { rig, crowd } = await crowdOf(30, undefined);
  await rig.clock.run(1_500);
  for (const zone of ["zone 0", "zone 1", "zone 2"]) {
    const members = crowd.flights.filter(({ node }) => node.zone === zone);
    for (let piece = 0; piece < rig.geometry.count; piece += 1) {
      const bringers = members.filter(({ member }) => member.bringsIn(piece)).length;
      if (bringers !== 1) t.fail(`${zone}: ${bringers} bring in piece ${piece}`);
    }
    for (const { member } of members) {
      const zones = member.neighbours.map((one) => one.zone);
      const own = zones.filter((one) => one === zone).length;
      t.ok(own >= 1, "some neighbours are of the own zone");
      t.ok(own < zones.length, "not all");
      t.same(
        zones.slice(0, own),
        Array.from({ length: own }, () => zone),
        "those first",
      );
    }
  }
  await rig.close();
});

await t.test("a piece enters a zone about once when members wait for whose turn it is", async (t) => {
  for (const nodes of [9, 30]) {
    const careless = await crowdOf(nodes, undefined);
    const took = await careless.crowd.run(60_000);
    const careful = await crowdOf(nodes, 2_000);
    const tookCareful = await careful.crowd.run(60_000);
    if (took === undefined || tookCareful === undefined) throw new Error("not all have finished");
    // Of three zones, two get each piece from another one.
    const entries = careful.crowd.crossed / (2 * careful.rig.geometry.count);
    const before = careless.crowd.crossed / (2 * careless.rig.geometry.count);
    t.comment(
      `${nodes} nodes: ${entries.toFixed(2)} entries of each piece into a zone (${before.toFixed(2)} without waiting), ` +
        `${(tookCareful / took).toFixed(2)} of the time`,
    );
    t.ok(entries <= 1.5, `${entries.toFixed(2)} times`);
    t.ok(entries < before);
    t.ok(tookCareful <= took * 1.15, "and costs little time");
    await careless.rig.close();
    await careful.rig.close();
  }
});

await t.test("around a holder, members of one zone take turns from the moment all are there", async (t) => {
  const rig = await new Rig({ nodes: 9, zoneOf: () => "here" }).start();
  const members = rig.nodes.map((node) => rig.join(node));
  members[0]?.holds({ id: "outside", host: "10.1.1.1", port: 24221 });
  await rig.clock.run(200);
  for (let piece = 0; piece < rig.geometry.count; piece += 1) {
    const whose = members.filter((member) => member.bringsIn(piece));
    const next = members.filter((member) => member.standsIn(piece));
    t.same([whose.length, next.length], [1, 1], `piece ${piece}`);
    t.not(whose[0], next[0]);
  }
  await rig.close();
});

await t.test("a zone that other nodes would not take is refused at start", async (t) => {
  for (const zone of ["zone-\u00fc", "a\nb", "z".repeat(64)]) {
    await t.rejects(new Rig({ nodes: 1, zoneOf: () => zone }).start(), {
      code: "CONFIG_INVALID",
      field: "zone",
    });
  }
});
