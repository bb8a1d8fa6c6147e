/** A holder's uplink is for what nobody else has, and each piece leaves it once. */
import t, { type Test } from "tap";
import { PieceTurns } from "../../src/transfer/piece-turns.ts";
import { memberOf, neighbourWith } from "./scripted-member.ts";

const COUNT = 8;
const ALL = [0, 1, 2, 3, 4, 5, 6, 7];
const PATIENCE_MS = 1_000;

/**
 * This node is the first of two members around a holder: even pieces are its own to bring in. The other one has `theirs`,
 * and has just brought in the last piece.
 */
async function setup(t: Test, theirs: number[], pieceMs?: number) {
  const { member, clock, deps } = memberOf(COUNT, () => Promise.withResolvers<never>().promise);
  const holder = { ...neighbourWith("holder", ALL), complete: true };
  let woken = 0;
  const refused = new Set<number>();
  member.neighbours = [holder, neighbourWith("other", theirs)];
  member.rarity = (piece) => 1 + Number(theirs.includes(piece));
  member.turnOf = (piece) => piece % 2;
  member.bringsIn = (piece) => piece % 2 === 0;
  member.standsIn = (piece) => piece % 4 === 1;
  const turns = new PieceTurns({
    ...deps,
    usual: () => pieceMs,
    gives: (_, piece) => !refused.has(piece),
    changed: () => (woken += 1),
  });
  t.teardown(() => turns.close());
  const mine = (): number[] => {
    turns.look();
    return ALL.filter((piece) => !turns.isOthers(holder, piece));
  };
  const isUrgent = (piece: number): boolean => !turns.isOthers(holder, piece, true);
  mine();
  theirs.push(7);
  return { turns, clock, theirs, mine, isUrgent, member, refused, map: deps.pieces.map, woken: () => woken };
}

await t.test("own pieces at once, others' when their member has much to do", async (t) => {
  const { mine, turns } = await setup(t, []);
  t.same(mine(), [0, 1, 2, 4, 5, 6]);
  t.ok(turns.waiting);
});

await t.test("who has little left to bring in needs no help", async (t) => {
  const { mine } = await setup(t, [3]);
  t.same(mine(), [0, 2, 4, 6]);
});

await t.test("what others have, too, they give, while there is anything that they have not", async (t) => {
  const { mine, map, theirs } = await setup(t, [0, 2]);
  t.same(mine(), [1, 4, 5, 6]);
  theirs.push(1, 3, 5);
  for (const piece of [4, 6]) map.set(piece);
  t.same(mine(), ALL, "nothing is left to be brought in");
});

await t.test("what a reader has waited for: of the holder only when nobody else has it", async (t) => {
  const { mine, isUrgent, refused } = await setup(t, [1, 3]);
  t.same(mine(), [0, 2, 4, 6]);
  t.ok(isUrgent(5), "others were to bring it");
  t.notOk(isUrgent(3), "another one gives it");
  refused.add(3);
  t.ok(isUrgent(3));
});

await t.test("it waits while others bring something, and then no longer", async (t) => {
  const { mine, clock, theirs, woken } = await setup(t, [1]);
  t.same(mine(), [0, 2, 4, 6]);
  await clock.run(PATIENCE_MS - 1);
  t.same(mine(), [0, 2, 4, 6]);
  theirs.push(3);
  t.same(mine(), [0, 2, 4, 6], "there is one more");
  await clock.run(PATIENCE_MS);
  t.same(mine(), ALL);
  t.ok(woken() > 0, "it was told when");
});

await t.test("what this node brings in itself is no sign of others", async (t) => {
  const { mine, clock, map } = await setup(t, [1]);
  mine();
  await clock.run(PATIENCE_MS - 1);
  map.set(0);
  mine();
  await clock.run(1);
  t.same(mine(), ALL);
});

await t.test("where pieces take long, longer", async (t) => {
  const { mine, clock } = await setup(t, [1], PATIENCE_MS);
  t.same(mine(), [0, 2, 4, 6]);
  await clock.run(4 * PATIENCE_MS - 1);
  t.same(mine(), [0, 2, 4, 6]);
  await clock.run(1);
  t.same(mine(), ALL);
});

await t.test("however long they take, a flight does not wait for that until it fails", async (t) => {
  const { mine, clock } = await setup(t, [1], 20 * PATIENCE_MS);
  t.same(mine(), [0, 2, 4, 6]);
  await clock.run(10 * PATIENCE_MS);
  t.same(mine(), ALL);
});

await t.test("nobody has got anything yet: others have their time from the first look on", async (t) => {
  const { member, clock, deps } = memberOf(COUNT, () => Promise.withResolvers<never>().promise);
  const holder = { ...neighbourWith("holder", ALL), complete: true };
  member.neighbours = [holder, neighbourWith("other", [])];
  member.bringsIn = () => false;
  const turns = new PieceTurns({ ...deps, usual: () => undefined, gives: () => true });
  t.teardown(() => turns.close());
  turns.look();
  t.ok(ALL.every((piece) => turns.isOthers(holder, piece)));
  await clock.run(PATIENCE_MS);
  turns.look();
  t.notOk(ALL.some((piece) => turns.isOthers(holder, piece)));
});

await t.test("what the other one does not give after all is the holder's to give", async (t) => {
  const { mine, refused } = await setup(t, [1]);
  t.notOk(mine().includes(1));
  refused.add(1);
  t.ok(mine().includes(1));
});

await t.test("without a holder there is nothing to wait for", async (t) => {
  const { mine, member, turns } = await setup(t, [1]);
  mine();
  t.ok(turns.waiting);
  member.neighbours = member.neighbours.filter(({ complete }) => !complete);
  turns.look();
  t.notOk(turns.waiting);
});
