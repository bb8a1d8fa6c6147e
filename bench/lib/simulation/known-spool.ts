import type { Clock } from "@p2p-mirror/shared";
import type { Spool } from "../../../packages/p2p-mirror/src/transfer/spool.ts";

/** Bytes a second that a modelled disk writes. */
const DISK_RATE = 400e6;

interface Interval {
  start: number;
  end: number;
  /** Other bytes than the blob's. */
  wrong: Buffer | undefined;
}

/**
 * A disk that keeps no copy of the blob, which is known: only where bytes were written, and those that were not the
 * blob's. Reading what was never written is an error, as the flight promises not to.
 */
export class KnownSpool implements Spool {
  readonly base = 0;
  readonly room = Infinity;
  readonly windowed = false;
  readonly inMemory = false;
  /** Bytes that were written, twice written ones twice. */
  written = 0;
  state: "open" | "committed" | "released" = "open";
  readonly #blob: Buffer;
  readonly #clock: Clock;
  readonly #rate: number;
  /** In order, none over another. */
  #intervals: Interval[] = [];

  /** `rate`: bytes a second that are written at a time. */
  constructor(blob: Buffer, clock: Clock, rate = DISK_RATE) {
    this.#blob = blob;
    this.#clock = clock;
    this.#rate = rate;
  }

  async write(offset: number, buffers: readonly Buffer[]): Promise<void> {
    if (this.state === "released") throw new Error("the spool is closed");
    let at = offset;
    for (const buffer of buffers) {
      this.#put(at, buffer);
      at += buffer.length;
    }
    if (at > this.#blob.length) throw new RangeError(`${at} is beyond the end of the blob`);
    this.written += at - offset;
    await new Promise<void>(
      (resolve) => void this.#clock.after(((at - offset) / this.#rate) * 1_000, resolve),
    );
  }

  writeUnchecked(offset: number, buffers: readonly Buffer[]): Promise<void> {
    return this.write(offset, buffers);
  }

  read(offset: number, length: number): Promise<Buffer> {
    if (this.state === "released") return Promise.reject(new Error("the spool is closed"));
    const found = this.#intervals.find(({ start, end }) => start <= offset && end > offset);
    if (found === undefined) return Promise.reject(new Error(`nothing was written at ${offset}`));
    const end = Math.min(found.end, offset + length);
    return Promise.resolve(
      found.wrong?.subarray(offset - found.start, end - found.start) ?? this.#blob.subarray(offset, end),
    );
  }

  recycle(): void {
    // Nothing here is used again.
  }

  discard(): void {
    // As a file: simply written over.
  }

  forget(): void {
    // As a file: everything is kept until it is released.
  }

  commit(): Promise<void> {
    this.state = "committed";
    return Promise.resolve();
  }

  release(): Promise<void> {
    this.state = "released";
    return Promise.resolve();
  }

  #put(start: number, bytes: Buffer): void {
    const end = start + bytes.length;
    const truth = this.#blob.subarray(start, end);
    const same = bytes.buffer === truth.buffer && bytes.byteOffset === truth.byteOffset;
    const wrong = same || bytes.equals(truth) ? undefined : Buffer.from(bytes);
    const around: Interval[] = [];
    for (const one of this.#intervals) {
      if (one.end <= start || one.start >= end) {
        around.push(one);
        continue;
      }
      if (one.start < start) around.push(part(one, one.start, start));
      if (one.end > end) around.push(part(one, end, one.end));
    }
    around.push({ start, end, wrong });
    this.#intervals = joined(around.toSorted((a, b) => a.start - b.start));
  }
}

const part = ({ start: from, wrong }: Interval, start: number, end: number): Interval => ({
  start,
  end,
  wrong: wrong?.subarray(start - from, end - from),
});

/** Neighbours that are both right become one. */
function joined(intervals: readonly Interval[]): Interval[] {
  const result: Interval[] = [];
  for (const one of intervals) {
    const last = result.at(-1);
    if (last !== undefined && last.end === one.start && last.wrong === undefined && one.wrong === undefined) {
      last.end = one.end;
    } else {
      result.push(one);
    }
  }
  return result;
}
