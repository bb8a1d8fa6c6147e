import { VirtualClock } from "@p2p-mirror/shared";
import t from "tap";
import { StallWatch } from "../../src/transfer/stall-watch.ts";

await t.test("a source is given up when it is silent and another one is there", async (t) => {
  const clock = new VirtualClock();
  let other = false;
  let stalledAt: number | undefined;
  const watch = new StallWatch(
    { stallMs: 1_500, alternatives: () => other, onStall: () => (stalledAt = clock.now()) },
    clock,
  );
  await clock.run(5_000);
  t.equal(stalledAt, undefined, "it is the only one");
  other = true;
  await clock.run(300);
  t.not(stalledAt, undefined);
  watch.close();
  t.equal(clock.pending, 0);
});

await t.test("for how long this node itself held it up does not count", async (t) => {
  const clock = new VirtualClock();
  let heldMs = 0;
  let stalledAt: number | undefined;
  const watch = new StallWatch(
    {
      stallMs: 1_500,
      alternatives: () => true,
      heldMs: () => heldMs,
      onStall: () => (stalledAt = clock.now()),
    },
    clock,
  );
  await clock.run(1_000);
  watch.arrived();
  watch.waiting();
  for (let second = 0; second < 10; second += 1) {
    await clock.run(1_000);
    heldMs += 1_000;
  }
  t.equal(stalledAt, undefined, "held up for ten seconds");
  await clock.run(1_400);
  t.equal(stalledAt, undefined);
  await clock.run(400);
  t.not(stalledAt, undefined, "silent for 1.5 s since");
  watch.close();
});

await t.test("with a floor, next to nothing is as good as silence", async (t) => {
  const clock = new VirtualClock();
  let applies = false;
  const gaveUp: [string, number][] = [];
  const floor = { bytes: 1_000, ms: 3_000, applies: () => applies };
  const watch = new StallWatch(
    { stallMs: 1_500, alternatives: () => true, floor, onStall: (why) => gaveUp.push([why, clock.now()]) },
    clock,
  );
  const bring = async (bytes: number, times: number, handleMs = 0): Promise<void> => {
    for (let nth = 0; nth < times && gaveUp.length === 0; nth += 1) {
      await clock.run(250);
      watch.arrived(bytes);
      await clock.run(handleMs);
      watch.waiting();
    }
  };
  await bring(10, 40);
  t.same(gaveUp, [], "nobody says that it matters");
  await bring(1_000, 1);
  applies = true;
  await bring(100, 40);
  t.same(gaveUp, [], "100 bytes each quarter of a second are above it");
  await bring(10, 40, 2_000);
  t.match(gaveUp, [["slow", Number]], "what this node takes for what came does not count");
  const took = (gaveUp[0]?.[1] ?? 0) - 10_250 - 10_000;
  t.ok(took > 10 * 2_000, `${took} ms, 3,000 of them waiting`);
  watch.close();
  t.equal(clock.pending, 0);
});
