/** One piece at a time of each holder, whichever blob it is of. */
import type { VirtualClock } from "@p2p-mirror/shared";
import t from "tap";
import { HolderQueue } from "../../src/transfer/holder-queue.ts";
import { memberOf, neighbourWith } from "./scripted-member.ts";
import { SwarmFetches } from "../../src/transfer/swarm-fetches.ts";

const TURN_MS = 5_000;

/** Blobs that want of `holder` what the names say, in their order. */
function blobs(...names: string[]) {
  const queue = new HolderQueue();
  const woken: string[] = [];
  const places = names.map((name) => queue.place(() => woken.push(name)));
  const take = (nth: number): boolean | undefined => {
    const taken = places[nth]?.take("holder");
    places[nth]?.settle(true);
    return taken;
  };
  return { places, woken, take };
}

await t.test("who has waited longest is next", async (t) => {
  const { places, woken, take } = blobs("a", "b", "c");
  t.ok(take(0));
  t.notOk(take(1));
  t.notOk(take(2));
  t.notOk(take(0), "it is in line again");
  places[0]?.giveBack("holder");
  t.same(woken, ["b"]);
  t.notOk(take(2), "not before others");
  t.ok(take(1));
  places[1]?.giveBack("holder");
  t.same(woken, ["b", "c"]);
  t.ok(take(2));
  places[2]?.giveBack("holder");
  t.ok(take(0));
  t.notOk(places[0]?.waiting);
  t.ok(places[1]?.take("another"), "each holder has a line of its own");
});

await t.test("who wants nothing any more lets the next one pass", async (t) => {
  const { places, woken, take } = blobs("a", "b", "c");
  take(0);
  take(1);
  take(2);
  t.ok(places[1]?.waiting);
  places[0]?.giveBack("holder");
  places[1]?.settle(false);
  t.notOk(places[1]?.waiting);
  t.same(woken, ["b", "c"]);
  t.ok(take(2));
});

await t.test("two blobs of a crowd around a holder ask it in turns, and in order", async (t) => {
  const holders = new HolderQueue();
  const asked: string[] = [];
  const clocks: VirtualClock[] = [];
  const swarms = ["a", "b"].map((blob) => {
    const crowd = memberOf(8, (_peer, _digest, { piece }) => {
      asked.push(`${blob}${piece}`);
      return Promise.withResolvers<never>().promise;
    });
    const holder = { ...neighbourWith("holder", [0, 1, 2, 3, 4, 5, 6, 7]), complete: true };
    crowd.member.neighbours = [holder, neighbourWith("other", [], "here")];
    crowd.member.rarity = () => 1;
    crowd.member.turnOf = (piece) => piece % 2;
    crowd.member.bringsIn = (piece) => piece % 2 === 1;
    const swarm = new SwarmFetches(crowd.options, { ...crowd.deps, holders });
    const assign = (): void =>
      swarm.assign({ upstream: false, neighbours: true, from: 0, patienceMs: () => 0 });
    crowd.state.onChange = assign;
    t.teardown(() => swarm.close());
    clocks.push(crowd.clock);
    return { swarm, assign };
  });
  for (const { assign } of swarms) assign();
  t.same(asked, ["a1"]);
  t.ok(swarms[1]?.swarm.takesTurns, "it waits for the other one");
  await clocks[0]?.run(2 * TURN_MS);
  t.same(asked, ["a1", "b1"], "a turn is over after a while");
});
