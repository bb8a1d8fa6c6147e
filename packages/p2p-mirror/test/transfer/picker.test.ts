/** Which pieces one request brings; and what becomes of pieces that come though they are here. */
import { createHash } from "node:crypto";
import { digestOf } from "@p2p-mirror/shared";
import t from "tap";
import { FlightPieces } from "../../src/transfer/flight-pieces.ts";
import { Picker } from "../../src/transfer/picker.ts";
import { PieceGeometry, PieceMap } from "../../src/transfer/pieces.ts";
import { WholeSpool } from "../../src/transfer/spool.ts";

const PIECE_BYTES = 128 * 1024;

await t.test("who streams all of it goes over what is here, up to what comes from elsewhere", async (t) => {
  const geometry = new PieceGeometry(8 * PIECE_BYTES);
  const done = new PieceMap(geometry.count);
  for (const piece of [0, 2, 3, 5]) done.set(piece);
  const picker = new Picker(geometry, done);
  const run = picker.takeWithin(0, 8);
  t.match(run, { first: 1, end: 2 });
  if (run === undefined) throw new Error("piece 1 is open");
  picker.takeWithin(6, 7);
  t.ok(picker.stretch(run, 8));
  t.match(run, { first: 1, end: 5 }, "not to piece 5, which is here, and not beyond piece 6");
  t.notOk(picker.stretch(run, 8));
  t.notOk(picker.isFree(4));
});

await t.test("pieces that are here stay as they are", async (t) => {
  const parts = [1, 2, 3].map((byte) => Buffer.alloc(PIECE_BYTES, byte));
  const [first, second, third] = parts as [Buffer, Buffer, Buffer];
  const blob = Buffer.concat(parts);
  const spool = new WholeSpool(blob.length);
  const pieces = new FlightPieces({ digest: digestOf(blob), size: blob.length }, spool, () => undefined);
  await pieces.writeUnchecked(PIECE_BYTES, [second]);
  pieces.take(1, createHash("sha256").update(second).digest());

  const run = pieces.picker.takeWithin(0, 3);
  if (run === undefined) throw new Error("piece 0 is open");
  pieces.picker.stretch(run, 3);
  const wrong = Buffer.alloc(PIECE_BYTES, 9);
  const head = Buffer.concat([first, wrong.subarray(0, 10)]);
  const tail = Buffer.concat([wrong.subarray(10), third]);
  t.ok(pieces.arrived(0, first.subarray(0, 10), undefined, undefined), "readers may have what is new");
  t.notOk(pieces.arrived(0, head, undefined, undefined), "but not what comes once more");
  t.equal(await pieces.write(run, 0, [head, tail], undefined), 2 * PIECE_BYTES);
  t.same(await spool.read(PIECE_BYTES, PIECE_BYTES), second);
  t.equal(run.next, 3);
  t.ok(pieces.complete);
  t.same((await pieces.verify()).error, undefined);
});
