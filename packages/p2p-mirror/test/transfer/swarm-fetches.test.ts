/** When a member of a swarm can only wait for others. */
import t from "tap";
import { TIMES } from "../../src/swarm/times.ts";
import type { AskForPiece } from "../../src/transfer/fetch-piece.ts";
import { SwarmFetches } from "../../src/transfer/swarm-fetches.ts";
import { memberOf, neighbourWith } from "./scripted-member.ts";

const MIB = 1024 * 1024;
const ZONE_PATIENCE_MS = 2_000;

async function setup(ask: AskForPiece = () => Promise.reject(new Error("nobody is asked"))) {
  const member = memberOf(8, ask);
  const swarm = new SwarmFetches(member.options, member.deps);
  t.teardown(() => swarm.close());
  await member.clock.run(0);
  return { ...member, swarm };
}

await t.test("nobody brings anything: there is nothing to wait for", async (t) => {
  const { member, clock, swarm } = await setup();
  t.notOk(swarm.waitsForOthers);
  member.told({ neighbours: [neighbourWith("a", [])] });
  await clock.run(0);
  t.notOk(swarm.waitsForOthers);
});

await t.test("as long as it hears that more was brought it waits", async (t) => {
  const { member, clock, swarm } = await setup();
  member.told({ neighbours: [neighbourWith("a", [])] });
  for (let nth = 1; nth <= 20; nth += 1) {
    member.told({ brought: nth * MIB });
    await clock.run(TIMES.reportSeldom);
    t.ok(swarm.waitsForOthers, `${nth} times`);
  }
  // The same is no news, however often it is said.
  member.told({ brought: 20 * MIB });
  await clock.run(999);
  t.ok(swarm.waitsForOthers, "an answer may be a second late");
  await clock.run(1);
  t.notOk(swarm.waitsForOthers);
  member.told({ brought: 21 * MIB });
  await clock.run(0);
  t.ok(swarm.waitsForOthers, "they go on");
});

await t.test("without a neighbour nothing of theirs would come here", async (t) => {
  const { member, clock, swarm } = await setup();
  member.told({ brought: MIB });
  await clock.run(0);
  t.notOk(swarm.waitsForOthers);
  member.told({ neighbours: [neighbourWith("a", [])] });
  t.ok(swarm.waitsForOthers);
});

await t.test("what a neighbour has can be asked for; what is here, too, is of no use", async (t) => {
  const { member, pieces, clock, swarm } = await setup();
  member.told({ brought: MIB, neighbours: [neighbourWith("a", [3])] });
  await clock.run(0);
  t.notOk(swarm.waitsForOthers);
  t.ok(swarm.canBeHad(3));
  t.notOk(swarm.canBeHad(4));
  pieces.map.set(3);
  t.ok(swarm.waitsForOthers);
});

await t.test("a piece of another zone is left to the node whose turn it is, for a while", async (t) => {
  const asked: string[] = [];
  const { member, clock, state, swarm } = await setup((peer) => {
    asked.push(peer.id);
    return Promise.withResolvers<never>().promise;
  });
  const assign = (): void => {
    swarm.assign({ from: 0, upstream: false, neighbours: true, patienceMs: () => 0 });
  };
  state.onChange = assign;
  member.bringsIn = () => false;
  member.told({ neighbours: [neighbourWith("far", [0], "there")] });
  await clock.run(ZONE_PATIENCE_MS - 1);
  t.ok(swarm.takesTurns);
  t.equal(swarm.active, 0);
  await clock.run(1);
  t.notOk(swarm.takesTurns);
  t.same(asked, ["far"], "nobody has brought it");
  t.equal(swarm.active, 1);
});
