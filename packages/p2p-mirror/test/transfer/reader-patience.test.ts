import { VirtualClock } from "@p2p-mirror/shared";
import t from "tap";
import { ReaderPatience } from "../../src/transfer/reader-patience.ts";

for (const [usualMs, patienceMs] of [
  [0, 10_000],
  [500, 10_000],
  [2_500, 30_000],
  [20_000, 30_000],
] as const)
  await t.test(
    `where a piece takes ${usualMs} ms, the first one is urgent after ${patienceMs} ms`,
    async (t) => {
      const clock = new VirtualClock();
      const readers = new ReaderPatience(clock);
      const urgent = (...open: number[]): number | undefined => readers.urgent(open, usualMs);
      t.equal(urgent(3, 4), undefined);
      await clock.run(patienceMs - 1);
      t.equal(urgent(3, 5), undefined);
      await clock.run(1);
      t.equal(urgent(3), 3);
      t.equal(urgent(4), undefined, "the next one waits as long");
      t.equal(urgent(), undefined);
    },
  );
