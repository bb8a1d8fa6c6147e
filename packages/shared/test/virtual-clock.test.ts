import t from "tap";
import { VirtualClock } from "../src/virtual-clock.ts";

await t.test(
  "events happen in the order of their time, those of the same time in order of their coming",
  async (t) => {
    const clock = new VirtualClock(1_000);
    const seen: [string, number][] = [];
    const at = (ms: number, name: string): (() => void) =>
      clock.after(ms, () => seen.push([name, clock.now()]));
    at(30, "c");
    at(10, "a1");
    at(10, "a2");
    at(20, "b");
    at(-5, "now");
    t.same(seen, [], "nothing happens by itself");
    t.equal(clock.pending, 5);
    await clock.run(25);
    t.same(seen, [
      ["now", 1_000],
      ["a1", 1_010],
      ["a2", 1_010],
      ["b", 1_020],
    ]);
    t.equal(clock.now(), 1_025, "all of the time has passed");
    await clock.run(25);
    t.same(seen.at(-1), ["c", 1_030]);
    t.equal(clock.pending, 0);
  },
);

await t.test(
  "what promises have to do after an event is done before the next, however long the chain",
  async (t) => {
    const clock = new VirtualClock();
    const seen: string[] = [];
    clock.after(1, () => {
      void (async () => {
        for (let nth = 0; nth < 50; nth += 1) await Promise.resolve();
        seen.push("the chain of the first");
      })();
    });
    clock.after(1, () => seen.push("the second"));
    await clock.run(1);
    t.same(seen, ["the chain of the first", "the second"]);
  },
);

await t.test(
  "what is taken back does not happen; taking back twice, or too late, does nothing",
  async (t) => {
    const clock = new VirtualClock();
    let count = 0;
    const cancel = clock.after(10, () => {
      count += 1;
    });
    const late = clock.after(5, () => {
      count += 10;
    });
    cancel();
    cancel();
    t.equal(clock.pending, 1);
    await clock.run(20);
    late();
    t.equal(count, 10);
    t.equal(clock.pending, 0);
  },
);

await t.test("run ends when it is done, or when nothing is left to happen", async (t) => {
  const clock = new VirtualClock();
  let count = 0;
  const again = (): void => {
    count += 1;
    clock.after(10, again);
  };
  again();
  t.equal(await clock.run(Infinity, () => count === 4), true);
  t.equal(clock.now(), 30);
  t.equal(await clock.run(15, () => count === 99), false);
  t.equal(clock.now(), 45);
  t.equal(await new VirtualClock(7).run(Infinity), false);
});

await t.test("thousands of events in any order come out sorted", async (t) => {
  const clock = new VirtualClock();
  const times: number[] = [];
  let state = 1;
  for (let nth = 0; nth < 5_000; nth += 1) {
    state = (state * 48_271) % 2_147_483_647;
    const cancel = clock.after(state % 1_000, () => times.push(clock.now()));
    if (nth % 7 === 0) cancel();
  }
  await clock.run(1_000);
  t.equal(times.length, 5_000 - Math.ceil(5_000 / 7));
  t.ok(times.every((time, nth) => nth === 0 || time >= (times[nth - 1] ?? 0)));
});
