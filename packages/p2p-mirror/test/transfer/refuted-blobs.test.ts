import { digestOf, VirtualClock } from "@p2p-mirror/shared";
import t, { type Test } from "tap";
import { RefutedBlobs } from "../../src/transfer/refuted-blobs.ts";
import { WholeSpool } from "../../src/transfer/spool.ts";
import { fileSpool } from "./flying.ts";

const about = (name: string, size = 10) => ({ digest: digestOf(Buffer.from(name)), size });
const hashes = new Map([[0, Buffer.alloc(32)]]);

function blobs(t: Test): { clock: VirtualClock; kept: RefutedBlobs } {
  const clock = new VirtualClock(0);
  const kept = new RefutedBlobs(clock, (error) => t.fail("it is released", { error }));
  return { clock, kept };
}

await t.test("the next try gets what the last one has left, once, and only of the same blob", async (t) => {
  const { clock, kept } = blobs(t);
  const spool = await fileSpool(t, 10);
  await kept.keep(about("a"), { spool, hashes });
  t.equal(kept.take(about("b")), undefined);
  t.equal(kept.take(about("a", 11)), undefined, "another size");
  t.same(kept.take(about("a")), { spool, hashes });
  t.equal(kept.take(about("a")), undefined);
  t.notOk(spool.state.released, "it is the next flight's");
  t.equal(clock.pending, 0);
});

await t.test(
  "what nobody comes for is released: after a while, when there is more, at the end",
  async (t) => {
    const { clock, kept } = blobs(t);
    const spools = await Promise.all(Array.from({ length: 10 }, () => fileSpool(t, 10)));
    for (const [nth, spool] of spools.entries()) await kept.keep(about(`${nth}`), { spool, hashes });
    const released = (): boolean[] => spools.map(({ state }) => state.released);
    t.same(released(), [true, true, ...Array.from({ length: 8 }, () => false)]);
    const again = await fileSpool(t, 10);
    await kept.keep(about("9"), { spool: again, hashes });
    t.ok(released()[9], "the newest counts");
    await clock.run(120_000);
    t.same(kept.take(about("5")), undefined);
    const last = await fileSpool(t, 10);
    await kept.keep(about("last"), { spool: last, hashes });
    await kept.close();
    t.ok(last.state.released);
    t.ok(released().every(Boolean));
  },
);

await t.test("memory is not kept", async (t) => {
  const { clock, kept } = blobs(t);
  const spool = new WholeSpool(10);
  await kept.keep(about("a"), { spool, hashes });
  t.equal(kept.take(about("a")), undefined);
  await t.rejects(spool.read(0, 1), "it is released");
  t.equal(clock.pending, 0);
});
