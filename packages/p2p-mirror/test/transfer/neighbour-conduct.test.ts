import { VirtualClock } from "@p2p-mirror/shared";
import t from "tap";
import { FAULT_PAUSE_MS, NeighbourConduct } from "../../src/transfer/neighbour-conduct.ts";

const setup = () => {
  const clock = new VirtualClock();
  return { clock, conduct: new NeighbourConduct(clock) };
};

await t.test("of whom nothing is known, anything may be asked", async (t) => {
  const { conduct } = setup();
  t.ok(conduct.isOpen("a"));
  t.ok(conduct.isOpenFor("a", 1));
});

await t.test("a pause is for one neighbour, or for one piece of it", async (t) => {
  const { clock, conduct } = setup();
  conduct.pause("a", 100);
  conduct.pausePiece("b", 1);
  t.notOk(conduct.isOpen("a"));
  t.ok(conduct.isOpen("b"));
  t.notOk(conduct.isOpenFor("b", 1));
  t.ok(conduct.isOpenFor("b", 2));
  t.ok(conduct.isOpenFor("a", 1));
  await clock.run(100);
  t.ok(conduct.isOpen("a"));
  await clock.run(FAULT_PAUSE_MS - 100);
  t.ok(conduct.isOpenFor("b", 1));
});

await t.test("two wrong pieces are too many; what is missed is counted apart", async (t) => {
  const { conduct } = setup();
  t.notOk(conduct.offends("a", "wrong"));
  t.notOk(conduct.offends("a", "missed"));
  t.ok(conduct.isOpen("a"));
  t.ok(conduct.offends("a", "missed"));
  t.ok(conduct.isOpen("a"), "what it has may be right");
  t.ok(conduct.offends("a", "wrong"));
  t.notOk(conduct.isOpen("a"));
  t.ok(conduct.isOpen("b"));
});

await t.test(
  "who cannot be reached for half a second is away, unless it was reached in between",
  async (t) => {
    const { clock, conduct } = setup();
    t.notOk(conduct.staysAway("a"));
    await clock.run(499);
    t.notOk(conduct.staysAway("a"));
    conduct.reached("a");
    await clock.run(1);
    t.notOk(conduct.staysAway("a"));
    await clock.run(500);
    t.ok(conduct.staysAway("a"));
  },
);
