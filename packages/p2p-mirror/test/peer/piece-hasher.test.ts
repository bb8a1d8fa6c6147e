import { getEventListeners } from "node:events";
import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { IntegrityError, NotFoundError } from "@p2p-mirror/shared";
import t from "tap";
import { PieceHasher, type UnhashedPiece } from "../../src/transfer/piece-hasher.ts";
import { until } from "../../../../test/rig/until.ts";
import { sha256 } from "./pieces-rig.ts";

/** A piece that its store opens and feeds when the test says so. */
class ScriptedPiece implements UnhashedPiece {
  readonly key: string;
  readonly bytes = randomBytes(10_000);
  readonly length = this.bytes.byteLength;
  readonly bodies: Readable[] = [];
  readonly signals: AbortSignal[] = [];
  readonly hashes: Uint8Array[] = [];
  opening: Promise<void> = Promise.resolve();

  constructor(key: string) {
    this.key = key;
  }

  async open({ signal }: { readonly signal: AbortSignal }): Promise<Readable> {
    this.signals.push(signal);
    await this.opening;
    const body = new Readable({ read() {} });
    this.bodies.push(body);
    return body;
  }

  sign(hash: Uint8Array): void {
    this.hashes.push(hash);
  }

  /** How often it was hashed; NaN when it was hashed wrong. */
  get times(): number {
    const right = sha256(this.bytes);
    return this.hashes.every((hash) => right.equals(hash)) ? this.hashes.length : Number.NaN;
  }

  feed(bytes: Buffer = this.bytes): void {
    const body = this.bodies.at(-1);
    body?.push(bytes);
    body?.push(null);
  }

  /** Its body is being read, and not only there. */
  get read(): boolean {
    return (this.bodies.at(-1)?.listenerCount("data") ?? 0) > 0;
  }
}

const never = new AbortController().signal;
const pieces = (count: number): ScriptedPiece[] =>
  Array.from({ length: count }, (_, nth) => new ScriptedPiece(`piece ${nth}`));

await t.test("who asks for the same piece at the same time shares one read", async (t) => {
  const hasher = new PieceHasher();
  const [piece] = pieces(1) as [ScriptedPiece];
  const leaving = new AbortController();
  const asked = [hasher.hash(piece.key, piece, never), hasher.hash(piece.key, piece, never)];
  const left = hasher.hash(piece.key, piece, leaving.signal);
  await until("it is read", () => piece.read);
  leaving.abort(new Error("gone"));
  await t.rejects(left, { message: "gone" });
  piece.feed();
  await Promise.all(asked);
  t.equal(piece.times, 1);
  t.equal(piece.bodies.length, 1);
  t.ok(piece.bodies[0]?.destroyed);
  const again = hasher.hash(piece.key, piece, never);
  await until("it is read again", () => piece.bodies.length === 2 && piece.read);
  piece.feed();
  await again;
  t.equal(piece.times, 2, "what it was is for the caller to remember");
});

await t.test("two are read at a time, in the order they came", async (t) => {
  const hasher = new PieceHasher();
  const all = pieces(5);
  const hashes = all.map((piece) => hasher.hash(piece.key, piece, never));
  for (let nth = 0; nth < all.length; nth += 1) {
    await until(`${nth} and the next are read`, () => all.slice(nth, nth + 2).every((piece) => piece.read));
    t.equal(all.filter((piece) => piece.read && !piece.bodies[0]?.destroyed).length, Math.min(2, 5 - nth));
    all[nth]?.feed();
    await hashes[nth];
    t.equal(all[nth]?.times, 1);
  }
});

await t.test("a store that hashes a whole blob first holds up nobody else", async (t) => {
  const hasher = new PieceHasher();
  const [slow, other, quick] = pieces(3) as [ScriptedPiece, ScriptedPiece, ScriptedPiece];
  const opened = Promise.withResolvers<void>();
  slow.opening = other.opening = opened.promise;
  const waiting = [hasher.hash(slow.key, slow, never), hasher.hash(other.key, other, never)];
  const hash = hasher.hash(quick.key, quick, never);
  await until("it is read", () => quick.read);
  quick.feed();
  await hash;
  t.equal(quick.times, 1);
  opened.resolve();
  await until("the others are read", () => slow.read && other.read);
  slow.feed();
  other.feed();
  await Promise.all(waiting);
  t.same([slow.times, other.times], [1, 1]);
});

await t.test("what nobody waits for any more ends, wherever it stood, and makes room", async (t) => {
  const hasher = new PieceHasher();
  const [opening, reading, second, queued, last] = pieces(5) as [
    ScriptedPiece,
    ScriptedPiece,
    ScriptedPiece,
    ScriptedPiece,
    ScriptedPiece,
  ];
  const opened = Promise.withResolvers<void>();
  opening.opening = opened.promise;
  const gone = new AbortController();
  const left = [opening, reading, second, queued].map((piece) => hasher.hash(piece.key, piece, gone.signal));
  await until("two are read, one waits", () => reading.read && second.read && queued.bodies.length === 1);
  const hash = hasher.hash(last.key, last, never);
  await until("another one waits", () => last.bodies.length === 1);
  t.notOk(last.read);
  gone.abort(new Error("gone"));
  for (const one of left) await t.rejects(one, { message: "gone" });
  t.ok(opening.signals[0]?.aborted, "its store is told");
  await until("who still waits is next", () => last.read);
  for (const piece of [reading, second, queued]) t.ok(piece.bodies[0]?.destroyed, piece.key);
  opened.resolve();
  await until("a body that comes after all is destroyed", () => opening.bodies[0]?.destroyed === true);
  last.feed();
  await hash;
  t.equal(last.times, 1);
  t.equal(getEventListeners(gone.signal, "abort").length, 0);
  t.equal(getEventListeners(never, "abort").length, 0);
  // Both turns are there again.
  const [a, b] = [hasher.hash(reading.key, reading, never), hasher.hash(second.key, second, never)];
  await until("both are read", () => reading.bodies.length === 2 && reading.read && second.read);
  reading.feed();
  second.feed();
  await Promise.all([a, b]);
  t.same(
    [opening, reading, second, queued].map((piece) => piece.times),
    [0, 1, 1, 0],
  );
});

await t.test(
  "a short piece is an IntegrityError, other failures are what they are; the turn is given back",
  async (t) => {
    const hasher = new PieceHasher();
    const [piece, after] = pieces(2) as [ScriptedPiece, ScriptedPiece];
    for (const bytes of [piece.bytes.subarray(1), Buffer.concat([piece.bytes, Buffer.alloc(1)])]) {
      const short = hasher.hash(piece.key, piece, never);
      const count = piece.bodies.length;
      await until("it is read", () => piece.bodies.length > count && piece.read);
      piece.feed(bytes);
      await t.rejects(short, IntegrityError);
    }
    const broken = hasher.hash(piece.key, piece, never);
    await until("it is read", () => piece.bodies.length === 3 && piece.read);
    piece.bodies.at(-1)?.destroy(new Error("disk on fire"));
    await t.rejects(broken, { message: "disk on fire" });
    piece.opening = Promise.reject(new NotFoundError("BLOB_UNKNOWN", "evicted"));
    await t.rejects(hasher.hash(piece.key, piece, never), NotFoundError);
    await t.rejects(hasher.hash(piece.key, piece, AbortSignal.abort(new Error("early"))), {
      message: "early",
    });
    const hash = hasher.hash(after.key, after, never);
    await until("it is read", () => after.read);
    after.feed();
    await hash;
    t.same([piece.times, after.times], [0, 1]);
  },
);
