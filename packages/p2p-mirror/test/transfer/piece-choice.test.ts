/** Which piece a neighbour is asked for. */
import t from "tap";
import type { Neighbour, SwarmMember } from "../../src/swarm/swarm.ts";
import { choosePiece } from "../../src/transfer/piece-choice.ts";

const neighbourWith = (pieces: readonly number[]): Neighbour => ({
  peer: { id: "a", host: "127.0.0.1", port: 1 },
  zone: "",
  load: 0,
  complete: false,
  left: false,
  has: (piece) => pieces.includes(piece),
});
/** The higher the piece, the rarer it is. */
const member: Pick<SwarmMember, "rarity" | "bringsIn"> = {
  rarity: (piece) => 10 - piece,
  bringsIn: () => true,
};
const common = {
  open: new Set([1, 2, 3, 4]),
  member,
  random: () => 0.5,
  inOrder: true,
  excluded: () => false,
};

const randomly = (...values: readonly number[]): (() => number) => {
  let nth = 0;
  return () => values[nth++ % values.length] ?? 0;
};

await t.test("the rarest of those it has", async (t) => {
  t.equal(choosePiece(neighbourWith([1, 2, 3]), common), 3);
  t.equal(choosePiece(neighbourWith([7]), common), undefined);
});

await t.test("what a reader has waited for, where it can be had", async (t) => {
  const urgent = { ...common, urgent: 1 };
  t.equal(choosePiece(neighbourWith([1, 2, 3]), urgent), 1);
  t.equal(choosePiece(neighbourWith([2, 3]), urgent), 3, "it has it not");
  t.equal(
    choosePiece(neighbourWith([1, 2, 3]), { ...urgent, open: new Set([2, 3]) }),
    3,
    "on its way already",
  );
  t.equal(choosePiece(neighbourWith([1, 2, 3]), { ...urgent, excluded: (_, piece) => piece === 1 }), 3);
});

await t.test(
  "of one that has everything: what it is this node's turn to bring, in the order of readers",
  async (t) => {
    const holder: Neighbour = { ...neighbourWith([1, 2, 3, 4]), complete: true };
    const around = { ...common, member: { rarity: () => 1, bringsIn: (piece: number) => piece > 2 } };
    t.equal(choosePiece(holder, around), 3);
    t.equal(choosePiece(holder, { ...around, open: new Set([4, 1, 3]) }), 4, "from where a reader is");
    const byChance = { ...around, open: new Set([3, 4]), inOrder: false };
    t.equal(
      choosePiece(holder, { ...byChance, random: randomly(0.9, 0.1) }),
      4,
      "where another zone has the same turns",
    );
    const others = { ...around, open: new Set([1, 2]), random: randomly(0.9, 0.1) };
    t.equal(choosePiece(holder, others), 2, "of others' turns any");
  },
);
