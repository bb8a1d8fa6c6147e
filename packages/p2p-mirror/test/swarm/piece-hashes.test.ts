import { createHash } from "node:crypto";
import { digestOf } from "@p2p-mirror/shared";
import t from "tap";
import { PieceHashes } from "../../src/swarm/piece-hashes.ts";
import { createPieceSigner, type PieceSigner } from "../../src/swarm/piece-signer.ts";
import { newIdentity } from "../../src/trust/identity.ts";

const digest = digestOf(Buffer.from("a blob"));
const COUNT = 16;
const hashOf = (text: string): Buffer => createHash("sha256").update(text).digest();
const right = (piece: number): Buffer => hashOf(`piece ${piece}`);
const wrong = (piece: number): Buffer => hashOf(`something else than piece ${piece}`);

/** The hashes of a blob at one node. */
async function nodeWith(signer?: PieceSigner, about = { digest, size: 1_000, count: COUNT }) {
  const own = signer ?? createPieceSigner(await newIdentity());
  const banned = new Set<string>();
  const refused: string[] = [];
  const hashes = new PieceHashes(about, {
    signer: own,
    isBanned: (peer) => banned.has(peer),
    ban: (peer) => banned.add(peer),
    refused: (peer) => refused.push(peer),
  });
  return { id: own.id, signer: own, hashes, banned, refused };
}

type HashNode = Awaited<ReturnType<typeof nodeWith>>;

/** What one says goes to the other, as with HAVE. */
function tell(from: HashNode, to: HashNode, piece: number): boolean {
  const hash = from.hashes.of(piece);
  if (hash === undefined) throw new Error(`piece ${piece} is not known`);
  return to.hashes.learn(hash);
}

/** What its blob is made of, when all pieces are taken by what counts. */
const used = ({ hashes }: HashNode): (Uint8Array | undefined)[] =>
  Array.from({ length: COUNT }, (_, piece) => hashes.of(piece)?.sha256);

await t.test("a hash counts by the signature of who fetched it, whoever passes it on", async (t) => {
  const [fetcher, relay, last] = [await nodeWith(), await nodeWith(), await nodeWith()];
  fetcher.hashes.sign(3, right(3));
  t.ok(tell(fetcher, relay, 3));
  t.ok(tell(relay, last, 3));
  t.ok(right(3).equals(last.hashes.of(3)?.sha256 ?? Buffer.alloc(0)));
  t.equal(last.hashes.of(3)?.signer, fetcher.id);
  t.equal(last.hashes.of(4), undefined);
});

await t.test("whatever is changed in it, it is refused", async (t) => {
  const [fetcher, other] = [await nodeWith(), await nodeWith()];
  fetcher.hashes.sign(3, right(3));
  const hash = fetcher.hashes.of(3);
  if (hash === undefined) throw new Error("it is not known");
  const flipped = Buffer.from(hash.signature);
  flipped[10] = (flipped[10] ?? 0) ^ 1;
  const changed = {
    "another piece": { ...hash, piece: 4 },
    "another hash": { ...hash, sha256: wrong(3) },
    "another signer": { ...hash, signer: other.id },
    "somebody who is nobody": { ...hash, signer: "nobody" },
    "another signature": { ...hash, signature: flipped },
    "no such piece": { ...hash, piece: COUNT },
  };
  const elsewhere: [string, HashNode][] = [
    [
      "another blob",
      await nodeWith(undefined, { digest: digestOf(Buffer.from("b")), size: 1_000, count: COUNT }),
    ],
    ["another size", await nodeWith(undefined, { digest, size: 1_001, count: COUNT })],
  ];
  for (const [what, one] of Object.entries(changed)) {
    const receiver = await nodeWith();
    t.notOk(receiver.hashes.learn(one), what);
    t.equal(receiver.hashes.of(one.piece), undefined, what);
  }
  for (const [what, receiver] of elsewhere) t.notOk(receiver.hashes.learn(hash), what);
});

await t.test(
  "what this node signed before its restart is taken from others, but not against what it knows",
  async (t) => {
    const identity = await newIdentity();
    const mine = await nodeWith(createPieceSigner(identity));
    const before = await nodeWith(createPieceSigner(identity));
    before.hashes.sign(1, wrong(1));
    before.hashes.sign(2, right(2));
    mine.hashes.sign(1, right(1));
    tell(before, mine, 1);
    t.ok(tell(before, mine, 2), "with its own signature, of another time");
    t.same(mine.hashes.of(1)?.sha256, right(1));
    t.same(mine.hashes.of(2)?.sha256, right(2));
    mine.hashes.mismatch([]);
    t.equal(mine.hashes.of(2), undefined, "it is a signer as any other");
    t.same(mine.hashes.of(1)?.sha256, right(1));
  },
);

await t.test(
  "signers who contradict each other are not mixed: who has said less is not believed",
  async (t) => {
    const [honest, liar, reader] = [await nodeWith(), await nodeWith(), await nodeWith()];
    for (let piece = 0; piece < 6; piece += 1) honest.hashes.sign(piece, right(piece));
    liar.hashes.sign(5, wrong(5));
    liar.hashes.sign(8, wrong(8));
    tell(liar, reader, 8);
    t.equal(reader.hashes.of(8)?.signer, liar.id, "while nobody contradicts");
    for (let piece = 0; piece < 5; piece += 1) tell(honest, reader, piece);
    tell(liar, reader, 5);
    tell(honest, reader, 5);
    t.equal(reader.hashes.of(5)?.signer, honest.id);
    t.equal(reader.hashes.of(8), undefined, "nothing of the other counts any more");
    t.same([...reader.banned], [], "nobody is banned on a contradiction");
  },
);

await t.test("what this node has from upstream itself is believed before all others", async (t) => {
  const [reader, liar] = [await nodeWith(), await nodeWith()];
  for (let piece = 0; piece < 5; piece += 1) {
    liar.hashes.sign(piece, wrong(piece));
    tell(liar, reader, piece);
  }
  reader.hashes.sign(2, right(2));
  t.equal(reader.hashes.of(2)?.signer, reader.id);
  t.equal(reader.hashes.of(3), undefined);
});

await t.test("the blob's digest proves who lied: that one is banned, and only it", async (t) => {
  const [honest, liar, other, reader] = [
    await nodeWith(),
    await nodeWith(),
    await nodeWith(),
    await nodeWith(),
  ];
  for (let piece = 0; piece < COUNT; piece += 1) {
    const who = [honest, liar, other][piece % 3] ?? honest;
    who.hashes.sign(piece, who === liar && piece === 7 ? wrong(piece) : right(piece));
    tell(who, reader, piece);
  }
  reader.hashes.mismatch(used(reader));
  for (let piece = 0; piece < COUNT; piece += 1)
    t.equal(reader.hashes.of(piece), undefined, "all were used, none is believed");
  t.same([...reader.banned], [], "who it was is not known yet");
  const refuted = reader.hashes.verified(Array.from({ length: COUNT }, (_, piece) => right(piece)));
  t.same(refuted, [liar.id]);
  t.same([...reader.banned], [liar.id]);

  const next = new PieceHashes(
    { digest, size: 2_000, count: COUNT },
    {
      signer: reader.signer,
      isBanned: (peer) => reader.banned.has(peer),
      ban: () => undefined,
      refused: () => undefined,
    },
  );
  const blob = { digest, size: 2_000, count: COUNT };
  const [again, good] = [await nodeWith(liar.signer, blob), await nodeWith(honest.signer, blob)];
  again.hashes.sign(0, right(0));
  good.hashes.sign(0, right(0));
  const [bad, fine] = [again.hashes.of(0), good.hashes.of(0)];
  if (bad === undefined || fine === undefined) throw new Error("they know");
  t.notOk(next.learn(bad), "its word counts no more, be it right");
  t.ok(next.learn(fine));
});

await t.test("after a wrong blob two must say the same; after a second one nobody is believed", async (t) => {
  const [honest, liar, other, reader] = [
    await nodeWith(),
    await nodeWith(),
    await nodeWith(),
    await nodeWith(),
  ];
  liar.hashes.sign(1, wrong(1));
  honest.hashes.sign(2, right(2));
  tell(liar, reader, 1);
  tell(honest, reader, 2);
  t.notOk(reader.hashes.isDoubted(1));
  reader.hashes.mismatch(used(reader));
  t.ok(reader.hashes.isDoubted(1));
  t.notOk(reader.hashes.isDoubted(3), "nobody has said anything of it");
  liar.hashes.sign(2, wrong(2));
  tell(liar, reader, 2);
  t.ok(reader.hashes.isDoubted(2), "one against one");
  for (const one of [honest, other]) one.hashes.sign(1, right(1));
  other.hashes.sign(2, right(2));
  tell(honest, reader, 1);
  t.ok(reader.hashes.isDoubted(1));
  tell(other, reader, 1);
  tell(other, reader, 2);
  t.same(reader.hashes.of(1)?.sha256, right(1));
  t.same(reader.hashes.of(2)?.sha256, right(2));
  t.equal(reader.hashes.of(1)?.signer, other.id, "the newest is passed on, which others may lack");
  reader.hashes.sign(3, right(3));
  t.same(reader.hashes.of(3)?.sha256, right(3), "what it has from upstream counts alone");
  reader.hashes.mismatch(used(reader));
  for (const piece of [1, 2]) t.ok(reader.hashes.isDoubted(piece), "two have lied together");
  t.same(reader.hashes.of(3)?.sha256, right(3));
  const all = Array.from({ length: COUNT }, (_, piece) => right(piece));
  t.same(reader.hashes.verified(all), [liar.id], "only who was wrong is banned");
});

await t.test(
  "a piece that this node fetches itself tells who lied: all others are believed again",
  async (t) => {
    const [honest, liar, other, reader] = [
      await nodeWith(),
      await nodeWith(),
      await nodeWith(),
      await nodeWith(),
    ];
    for (const piece of [0, 1, 2]) honest.hashes.sign(piece, right(piece));
    for (const piece of [3, 4]) liar.hashes.sign(piece, piece === 4 ? wrong(piece) : right(piece));
    other.hashes.sign(5, right(5));
    reader.hashes.sign(6, right(6));
    const all: [HashNode, number][] = [
      [honest, 0],
      [honest, 1],
      [honest, 2],
      [liar, 3],
      [liar, 4],
      [other, 5],
    ];
    for (const [from, piece] of all) tell(from, reader, piece);
    t.notOk(reader.hashes.doubts);
    reader.hashes.mismatch(used(reader));
    t.ok(reader.hashes.doubts);
    t.same(reader.hashes.of(6)?.sha256, right(6), "its own word counts");
    const everybody = new Set([honest.id, liar.id, other.id]);
    const parts = [honest, liar, other, reader].map((one) => {
      for (const [from, piece] of [...all, [reader, 6] as const]) if (from !== one) tell(from, one, piece);
      if (one !== reader) one.hashes.mismatch(used(one));
      return one.hashes.toCheck(new Set([...everybody, reader.id].filter((id) => id !== one.id)));
    });
    t.same(
      parts.flat().toSorted((a, b) => a - b),
      [0, 1, 2, 3, 4, 5, 6],
      "each piece is fetched once more, by one of them",
    );
    t.same((await nodeWith()).hashes.toCheck(everybody), [], "who has signed nothing leaves it to those");

    reader.hashes.sign(3, right(3));
    t.ok(reader.hashes.isDoubted(0), "the same as was said proves nothing");
    reader.hashes.sign(4, right(4));
    for (const piece of [0, 1, 2, 3, 4, 5]) t.same(reader.hashes.of(piece)?.sha256, right(piece));
    t.same([...reader.banned], [], "upstream may give wrong bytes to this node, too");

    tell(reader, honest, 4);
    t.equal(honest.hashes.of(4), undefined, "one against one: whom to believe?");
    t.equal(
      honest.hashes.toCheck(new Set([reader.id, liar.id]))[0],
      4,
      "that is looked at first, by everybody",
    );
  },
);

await t.test("who did not make the blob wrong does not explain it", async (t) => {
  const [honest, liar, reader] = [await nodeWith(), await nodeWith(), await nodeWith()];
  honest.hashes.sign(1, right(1));
  tell(honest, reader, 1);
  reader.hashes.sign(0, right(0));
  reader.hashes.mismatch(used(reader));
  liar.hashes.sign(0, wrong(0));
  tell(liar, reader, 0);
  t.ok(reader.hashes.isDoubted(1));
});

await t.test(
  "what is known is not verified again, and no more than four say something of a piece",
  async (t) => {
    const reader = await nodeWith();
    let verified = 0;
    const counting = await nodeWith({
      ...reader.signer,
      verify: (...args) => {
        verified += 1;
        return reader.signer.verify(...args);
      },
    });
    const signers = await Promise.all(Array.from({ length: 6 }, () => nodeWith()));
    for (const one of signers) one.hashes.sign(0, right(0));
    const learned = signers.map((one) => tell(one, counting, 0));
    t.same(learned, [true, true, true, true, false, false]);
    for (const one of signers.slice(0, 4)) t.ok(tell(one, counting, 0));
    t.equal(verified, 4);
  },
);
