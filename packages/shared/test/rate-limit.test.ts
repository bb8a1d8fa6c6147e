import t from "tap";
import { RateLimit, type RateShare } from "../src/rate-limit.ts";
import { VirtualClock } from "../src/virtual-clock.ts";

const MIB = 1024 * 1024;

/** A source that always has more: chunk after chunk as long as it may, the next ones at its turns. */
class Greedy {
  passed = 0;
  turns = 0;
  readonly share: RateShare;
  readonly #chunk: number;

  constructor(limit: RateLimit, chunk: number) {
    this.#chunk = chunk;
    this.share = limit.share(() => {
      this.turns += 1;
      this.go();
    });
  }

  go(): this {
    do this.passed += this.#chunk;
    while (this.share.spend(this.#chunk));
    return this;
  }
}

await t.test("the rate is held, whatever the size of chunks and the number of bodies", async (t) => {
  for (const bytesPerSecond of [256 * 1024, 5 * MIB, 400 * MIB])
    for (const bodies of [1, 7])
      for (const chunk of [1000, 64 * 1024, 256 * 1024]) {
        const clock = new VirtualClock();
        const limit = new RateLimit(bytesPerSecond, clock);
        const all = Array.from({ length: bodies }, () => new Greedy(limit, chunk).go());
        await clock.run(20_000);
        const rate = all.reduce((sum, { passed }) => sum + passed, 0) / 20;
        const what = `${bytesPerSecond} a second, ${bodies} bodies, chunks of ${chunk}: ${rate}`;
        // What every body may have passed too early.
        t.ok(rate <= bytesPerSecond * 1.01 + (bodies * chunk) / 20, what);
        t.ok(rate >= bytesPerSecond * 0.99, what);
        for (const { share } of all) share.close();
        t.equal(clock.pending, 0, "no timer is left");
      }
});

await t.test("bodies get equal parts, also when some come in larger chunks than others", async (t) => {
  const clock = new VirtualClock();
  const limit = new RateLimit(4 * MIB, clock);
  const all = [4 * 1024, 16 * 1024, 64 * 1024, 256 * 1024].map((chunk) => new Greedy(limit, chunk).go());
  await clock.run(30_000);
  for (const { passed } of all) t.ok(Math.abs(passed / (30 * MIB) - 1) < 0.03, `${passed}`);
});

await t.test("who comes new waits one round at most, and small messages do not wait", async (t) => {
  const clock = new VirtualClock();
  const limit = new RateLimit(MIB, clock);
  const old = Array.from({ length: 9 }, () => new Greedy(limit, limit.quantum).go());
  await clock.run(5_000);
  const { roundMs } = limit;
  t.equal(limit.held, 9);
  const fresh = new Greedy(limit, limit.quantum).go();
  t.equal(fresh.passed, limit.quantum, "its first bytes pass");
  await clock.run(roundMs * 1.3);
  t.ok(fresh.turns >= 1, `a turn within ${roundMs} ms`);

  const before = old.reduce((sum, { passed }) => sum + passed, 0) + fresh.passed;
  limit.charge(2 * MIB);
  await clock.run(10_000);
  const after = old.reduce((sum, { passed }) => sum + passed, 0) + fresh.passed;
  t.ok(Math.abs((after - before) / (8 * MIB) - 1) < 0.05, "the others made room for the small ones");
});

await t.test(
  "a body that ends leaves its part to the others, and how long each was held is known",
  async (t) => {
    const clock = new VirtualClock();
    const limit = new RateLimit(MIB, clock);
    const [first, second] = [new Greedy(limit, 16 * 1024).go(), new Greedy(limit, 16 * 1024).go()];
    await clock.run(10_000);
    second.share.close();
    t.equal(second.share.held, false);
    const [passed, heldMs] = [first.passed, first.share.heldMs];
    t.ok(heldMs > 9_000 && heldMs <= 10_000, `held for ${heldMs} ms`);
    await clock.run(10_000);
    t.ok(Math.abs((first.passed - passed) / (10 * MIB) - 1) < 0.02, "all of the rate is its own now");
    t.ok(second.share.spend(MIB), "who is over is not held up");
    first.share.close();
    const idle = first.share.heldMs;
    await clock.run(1_000);
    t.equal(first.share.heldMs, idle);
  },
);

await t.test("what was not used for a while is not made up for by a burst", async (t) => {
  const clock = new VirtualClock();
  const limit = new RateLimit(10 * MIB, clock);
  await clock.run(60_000);
  const body = new Greedy(limit, 64 * 1024).go();
  t.ok(body.passed <= 2 * limit.quantum + 64 * 1024, `${body.passed} at once`);
});
