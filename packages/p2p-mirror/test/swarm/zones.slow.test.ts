import t from "tap";
import { Crowd } from "./crowd.ts";
import { MIB, Rig } from "./rig.ts";

await t.test("every piece is one member's of each zone to bring in", async (t) => {
  const rig = await new Rig({
    nodes: 30,
    size: 128 * MIB,
    seed: 70,
    zoneOf: (nth) => `zone ${nth % 3}`,
    encoded: false,
  }).start();
  const crowd = new Crowd(rig, { upstream: { rate: 12 * MIB }, nodeRate: 24 * MIB });
  for (const node of rig.nodes) crowd.start(node);
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
