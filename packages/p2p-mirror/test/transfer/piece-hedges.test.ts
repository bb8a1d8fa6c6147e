/** A piece that is late is asked of a second neighbour: when, how often, and what becomes of the first. */
import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { SourceError } from "@p2p-mirror/shared";
import t from "tap";
import type { Peer } from "../../src/routing/router.ts";
import type { AskForPiece } from "../../src/transfer/fetch-piece.ts";
import { PieceFetches } from "../../src/transfer/piece-fetches.ts";
import { PieceHedges } from "../../src/transfer/piece-hedges.ts";
import { memberOf, neighbourWith, PIECE_BYTES } from "./scripted-member.ts";

const MIB = 1024 * 1024;

await t.test("a piece is late when it takes twice as long as others, and half a second", async (t) => {
  const hedges = new PieceHedges();
  for (let nth = 0; nth < 40; nth += 1) hedges.asked();
  t.notOk(hedges.may(MIB, 60_000), "nobody knows what pieces take");
  hedges.took(400, MIB);
  t.equal(hedges.usual(MIB / 2), 200);
  t.notOk(hedges.may(MIB, 799));
  t.ok(hedges.may(MIB, 800));
  t.notOk(hedges.may(MIB / 8, 499));
  t.ok(hedges.may(MIB / 8, 500));
  t.notOk(hedges.may(MIB + 1, 60_000), "it would be held in memory");
});

await t.test("of a hundred pieces five, one at a time", async (t) => {
  const hedges = new PieceHedges();
  hedges.took(1, MIB);
  const hedged: number[] = [];
  for (let nth = 1; nth <= 100; nth += 1) {
    hedges.asked();
    if (!hedges.may(MIB, 10_000)) continue;
    const over = hedges.begin();
    hedged.push(nth);
    t.notOk(hedges.may(MIB, 10_000), "one is under way");
    over();
  }
  t.same(hedged, [20, 40, 60, 80, 100]);
});

await t.test("one of the last three may have company as soon as it takes longer than usual", async (t) => {
  const hedges = new PieceHedges();
  hedges.asked();
  hedges.took(200, MIB);
  t.notOk(hedges.may(MIB, 10_000), "the first of five in a hundred comes later");
  hedges.left(1, 3);
  t.notOk(hedges.may(MIB, 10_000), "something is open: others have work");
  hedges.left(0, 4);
  t.notOk(hedges.may(MIB, 10_000));
  hedges.left(0, 3);
  t.notOk(hedges.may(MIB, 199));
  t.ok(hedges.may(MIB, 200));
});

const COUNT = 8;
const bytesOf = (piece: number): Buffer => Buffer.alloc(PIECE_BYTES, piece + 1);
const sha256 = (bytes: Buffer): Buffer => createHash("sha256").update(bytes).digest();

interface Request {
  readonly peer: string;
  readonly piece: number;
  readonly aborted: () => boolean;
}

/**
 * Two neighbours of one zone have all of eight pieces. The piece `late` is given by the one that is asked first in its own time: bytes
 * of it, and then nothing, until `fail` is called. What the second says of it is `second`; who is asked later has it.
 */
async function setup({
  late,
  second,
  zone = "here",
}: {
  late: number;
  second?: Buffer | Error;
  zone?: string;
}) {
  const requests: Request[] = [];
  let stuck: Readable | undefined;
  const ask: AskForPiece = async (peer: Peer, _digest, { piece }, { signal }) => {
    const before = requests.filter((one) => one.piece === piece).length;
    requests.push({ peer: peer.id, piece, aborted: () => signal.aborted });
    const whole = bytesOf(piece);
    if (piece !== late) return { body: Readable.from([whole]), hash: undefined };
    if (before === 1 && second instanceof Error) throw second;
    if (before > 0) {
      const bytes = before === 1 && second instanceof Buffer ? second : whole;
      return { body: Readable.from([bytes]), hash: undefined };
    }
    const body = new Readable({ read: () => undefined });
    body.push(whole.subarray(0, 1_000));
    signal.addEventListener("abort", () => body.destroy(new Error("aborted")), { once: true });
    stuck = body;
    return { body, hash: undefined };
  };
  const made = memberOf(COUNT, ask);
  const { member, clock, state, pieces } = made;
  const all = [...Array(COUNT).keys()];
  member.neighbours = [neighbourWith("a", all, zone), neighbourWith("b", all, zone)];
  const hashes = {
    ...made.deps.hashes,
    of: (piece: number) => ({
      digest: made.options.digest,
      piece,
      sha256: sha256(bytesOf(piece)),
      signature: Buffer.alloc(0),
      publicKey: Buffer.alloc(0),
    }),
  };
  const written: number[] = [];
  const hedged: boolean[] = [];
  const deps = {
    ...made.deps,
    hashes: hashes as unknown as typeof made.deps.hashes,
    written: (_kind: string, bytes: number) => void written.push(bytes),
    hedged: (won: boolean) => void hedged.push(won),
  };
  const fetches = new PieceFetches(made.options, deps);
  t.teardown(() => {
    state.onChange = undefined;
    fetches.close();
  });
  state.onChange = () => fetches.askAll(0);
  fetches.askAll(0);
  // Files are real, the clock is not: by steps, until nothing more happens.
  const pass = async (ms: number): Promise<void> => {
    for (let passed = 0; passed < ms; passed += 50) {
      await clock.run(50);
      await new Promise((resolve) => void setImmediate(resolve));
    }
  };
  const of = (piece: number): Request[] => requests.filter((one) => one.piece === piece);
  return { pass, pieces, of, fail: (error: Error) => stuck?.destroy(error), fetches, written, hedged };
}

await t.test("the last piece is asked of another one, too, who is first", async (t) => {
  const { pass, pieces, of, written, hedged } = await setup({ late: 3 });
  await pass(1_000);
  const [first, second, ...others] = of(3);
  t.same(others, []);
  t.not(first?.peer, second?.peer);
  t.ok(first?.aborted(), "the first one is let go");
  t.ok(pieces.complete);
  const whole = await pieces.hashFrom(3 * PIECE_BYTES, 4 * PIECE_BYTES);
  t.ok(whole.equals(sha256(bytesOf(3))), "with what was there of it before");
  t.equal(written.length, COUNT, "each piece counts once");
  t.same(hedged, [true]);
});

await t.test("one of another zone is not: each byte enters a zone once", async (t) => {
  const { pass, pieces, of } = await setup({ late: 3, zone: "there" });
  await pass(1_000);
  t.equal(of(3).length, 1);
  t.notOk(pieces.complete);
});

await t.test("the second one's word is not taken for it: wrong bytes are none", async (t) => {
  const { pass, pieces, of, hedged } = await setup({ late: 3, second: Buffer.alloc(PIECE_BYTES, 99) });
  await pass(1_000);
  t.equal(of(3).length, 2);
  t.notOk(of(3)[0]?.aborted(), "the first one goes on");
  t.notOk(pieces.isDone(3));
  t.same(hedged, [false]);
});

await t.test("the second one fails: the piece is taken away from the first all the same", async (t) => {
  const { pass, pieces, of } = await setup({ late: 3, second: new SourceError("CUT", "second") });
  await pass(1_900);
  t.equal(of(3).length, 2);
  t.notOk(of(3)[0]?.aborted());
  await pass(2_000);
  t.ok(of(3)[0]?.aborted(), "slower than others");
  t.ok(pieces.complete);
});

await t.test(
  "the first one breaks off while the second is asked: nobody is asked a third time",
  async (t) => {
    const { pass, pieces, of, fail } = await setup({ late: 3 });
    await pass(50);
    fail(new Error("broken"));
    await pass(3_000);
    t.ok(pieces.complete);
    t.equal(of(3).length, 2);
  },
);
