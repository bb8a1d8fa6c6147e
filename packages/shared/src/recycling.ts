import type { Readable } from "node:stream";

/**
 * A byte stream that takes its chunks back and reads into them again. Who writes to a socket and knows, by the write's
 * callback without an error, that the operating system has the bytes, gives the chunk back (the very object that came out
 * of the stream); who does not know never does. After that the chunk must not be looked at: it will hold other bytes.
 *
 * Worth it where blobs are sent: eight files of 256 MiB at once over loopback took 110 MB of memory instead of 230, and
 * 0.43 s of CPU a GB instead of 0.73, against chunks left to the garbage collector.
 */
export interface RecyclingReadable extends Readable {
  recycle(chunk: Uint8Array): void;
}

export const isRecycling = (stream: Readable): stream is RecyclingReadable =>
  "recycle" in stream && typeof stream.recycle === "function";

/** Consecutive chunks as few: parts of the same memory that lie behind one another become one. No byte is copied. */
export function joinParts(parts: readonly Buffer[]): Buffer[] {
  const joined: Buffer[] = [];
  for (const part of parts) {
    const last = joined.at(-1);
    const both = last === undefined ? undefined : joinPart(last, part);
    if (both === undefined) joined.push(part);
    else joined[joined.length - 1] = both;
  }
  return joined;
}

/** Both as one when `next` lies right behind `part` in the same memory, else undefined. */
export function joinPart(part: Buffer, next: Buffer): Buffer | undefined {
  if (part.buffer !== next.buffer || part.byteOffset + part.byteLength !== next.byteOffset) return undefined;
  return Buffer.from(part.buffer, part.byteOffset, part.byteLength + next.byteLength);
}

/** The bytes from `start` to `end` of consecutive chunks. No byte is copied; when it is all of them, it is these. */
export function slicesOf(chunks: readonly Buffer[], start: number, end: number): readonly Buffer[] {
  const slices: Buffer[] = [];
  let at = 0;
  for (const chunk of chunks) {
    const slice = chunk.subarray(Math.max(0, start - at), Math.max(0, end - at));
    if (slice.length > 0) slices.push(slice);
    at += chunk.length;
  }
  return start === 0 && end >= at ? chunks : slices;
}
