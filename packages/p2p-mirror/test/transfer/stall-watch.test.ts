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
