/** Links of the simulator: who shares one gets what is fair, and a link that many share is as unfair as TCP makes it. */
import { VirtualClock } from "@p2p-mirror/shared";
import t from "tap";
import { CrowdedLink } from "../bench/lib/simulation/crowded-link.ts";
import { Flows, type Flow, type Link } from "../bench/lib/simulation/flows.ts";
import { seeded } from "../packages/p2p-mirror/test/swarm/rig.ts";

const RATE = 300;

await t.test("flows share links by weight, and what one cannot use is the others'", async (t) => {
  const clock = new VirtualClock();
  const flows = new Flows(clock, 0, () => false);
  const start = (links: readonly Link[], weight?: number): Flow =>
    flows.start({
      from: "a",
      to: "b",
      links,
      bytes: 1_000_000,
      arrived: () => 0,
      ...(weight !== undefined && { weight }),
    });
  const shared: Link = { rate: RATE };
  const [one, two] = [start([shared]), start([shared], 2)];
  const narrow = start([shared, { rate: 30 }], 4);
  await clock.run(10, () => false);
  t.same([one.rate, two.rate, narrow.rate], [90, 180, 30]);
  flows.end(narrow);
  await clock.run(10, () => false);
  t.same([one.rate, two.rate], [100, 200]);
});

await t.test(
  "a crowded link: the median connection has its share, one in 33 records is followed by silence",
  (t) => {
    const crowded = new CrowdedLink(seeded(1));
    const many = Array.from({ length: 20_000 });
    const weights = many.map(() => crowded.weight()).toSorted((a, b) => a - b);
    const [low = 0, median = 0, high = 0] = [0.16, 0.5, 0.84].map((part) => weights[part * many.length]);
    t.ok(median > 0.95 && median < 1.05, `median ${median}`);
    t.ok(low < 0.42 && high > 2.4, `two of three between ${low} and ${high}`);
    const silences = many.map(() => crowded.silenceMs()).filter((ms) => ms > 0);
    t.ok(silences.length > 500 && silences.length < 720, `${silences.length} of ${many.length} are silent`);
    t.same(
      [...new Set(silences)].toSorted((a, b) => a - b),
      [300, 600, 1_200, 2_400],
    );
    t.end();
  },
);
