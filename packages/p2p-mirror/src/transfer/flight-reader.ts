import { IntegrityError, type ByteRange } from "@p2p-mirror/shared";
import { READ_BYTES, type Spool } from "./spool.ts";

/** Held back from every body until the blob's digest is known to be right. */
export const TAIL_BYTES = 64 * 1024;

/** What a reader sees of its flight. */
export interface FlightView {
  readonly spool: Spool;
  /** Up to `max` bytes from `offset`, when they have arrived but are not written yet, and may be given out. */
  fresh(offset: number, max: number): Buffer | undefined;
  /** The whole blob matches its digest. */
  readonly verified: boolean;
  /** How far the bytes from `offset` on may be given out: `offset` itself when the next byte is not there yet. */
  releasable(offset: number): number;
  /** Resolves at the next change of any of these; rejects when the flight has failed, or the signal aborts. */
  changed(signal: AbortSignal): Promise<void>;
}

/** Bytes that others say are right, where those in the spool may be wrong. */
export interface Vouched {
  readonly start: number;
  readonly bytes: Buffer;
  /** Upstream says so. Two peers may be wrong, too. */
  readonly isSure: boolean;
}

/** A reader's place in the blob; the flight sees from it who waits for what. */
export interface Cursor {
  position: number;
  readonly end: number;
  /** What keeps this reader alive: taken, but for the last one maybe. */
  readonly vouched: Vouched[];
}

/**
 * The bytes of `cursor`, as they come. The last ones leave only after the digest of the whole blob was verified, whatever
 * part of it was asked for: a full-length wrong body would poison the client.
 */
export async function* readFlight(
  view: FlightView,
  range: ByteRange,
  cursor: Cursor,
  signal: AbortSignal,
): AsyncGenerator<Buffer, void, undefined> {
  const tail = Math.max(range.start, range.end - TAIL_BYTES);
  let proven = false;
  while (cursor.position < range.end) {
    if (view.verified && !proven) {
      await prove(view, cursor);
      proven = true;
    }
    const end = proven ? range.end : tail;
    const vouched = cursor.vouched.at(-1);
    if (vouched?.start === cursor.position) {
      cursor.position += vouched.bytes.length;
      yield vouched.bytes;
      continue;
    }
    const fresh = cursor.position < end ? view.fresh(cursor.position, end - cursor.position) : undefined;
    if (fresh !== undefined) {
      cursor.position += fresh.length;
      yield fresh;
      continue;
    }
    const limit = Math.min(view.releasable(cursor.position), end);
    if (limit <= cursor.position) {
      await view.changed(signal);
      continue;
    }
    const chunk = await view.spool.read(cursor.position, Math.min(READ_BYTES, limit - cursor.position));
    cursor.position += chunk.length;
    yield chunk;
  }
}

/** @throws IntegrityError: the reader has got something else by the word of peers, and must not get the rest. */
async function prove({ spool }: FlightView, { vouched, position }: Cursor): Promise<void> {
  for (const { start, bytes, isSure } of vouched) {
    if (isSure || start >= position) continue;
    for (let at = 0; at < bytes.length;) {
      const right = await spool.read(start + at, bytes.length - at);
      const isRight = right.equals(bytes.subarray(at, at + right.length));
      at += right.length;
      spool.recycle(right);
      if (!isRight)
        throw new IntegrityError(
          "DIGEST_MISMATCH",
          "bytes of the blob",
          "what peers vouched for",
          `at ${start}`,
        );
    }
  }
}

/** The bytes of `cursor`, all of which are in the spool, as they are. */
export async function* readSpool(
  spool: Spool,
  cursor: Cursor,
  signal: AbortSignal | undefined,
): AsyncGenerator<Buffer, void, undefined> {
  while (cursor.position < cursor.end) {
    signal?.throwIfAborted();
    const chunk = await spool.read(cursor.position, Math.min(READ_BYTES, cursor.end - cursor.position));
    cursor.position += chunk.length;
    yield chunk;
  }
}
