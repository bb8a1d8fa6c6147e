import type { PieceGeometry } from "../transfer/pieces.ts";
import type { Lease } from "./swarm.ts";

/** A lease as the table keeps it. */
export interface Run {
  readonly id: number;
  readonly holder: string;
  readonly first: number;
  end: number;
  /** The lowest piece that is missing still; where the holder is. */
  next: number;
  /** That the holder has reported. */
  bytes: number;
  readonly grantedAt: number;
  renewedAt: number;
  measuredAt: number;
  /** Undefined: the next report is what is measured from (a lease of another coordinator). */
  measuredBytes: number | undefined;
}

/** The runs of pieces that are leased, and what is free beside them. */
export class Runs {
  readonly #runs = new Map<number, Run>();
  readonly #geometry: PieceGeometry;
  readonly #missing: (piece: number) => boolean;

  constructor(geometry: PieceGeometry, missing: (piece: number) => boolean) {
    this.#geometry = geometry;
    this.#missing = missing;
  }

  get size(): number {
    return this.#runs.size;
  }

  [Symbol.iterator](): IterableIterator<Run> {
    return this.#runs.values();
  }

  get(id: number): Run | undefined {
    return this.#runs.get(id);
  }

  add(holder: string, { id, first, end }: Lease, now: number, measuredBytes: number | undefined): void {
    const times = { grantedAt: now, renewedAt: now, measuredAt: now };
    this.#runs.set(id, { id, holder, first, end, next: first, bytes: 0, measuredBytes, ...times });
  }

  delete(id: number): boolean {
    return this.#runs.delete(id);
  }

  of(holder: string): Run[] {
    return [...this.#runs.values()].filter((run) => run.holder === holder);
  }

  /** The byte its holder is at, as far as it has said. */
  position(run: Run): number {
    return Math.max(
      this.#geometry.start(run.next),
      Math.min(this.#geometry.start(run.first) + run.bytes, this.lastByte(run)),
    );
  }

  /** One past the last byte. */
  lastByte(run: Run): number {
    return this.#geometry.end(run.end - 1);
  }

  left(run: Run): number {
    return this.lastByte(run) - this.position(run);
  }

  isLeased(piece: number): boolean {
    for (const run of this.#runs.values()) if (piece >= run.first && piece < run.end) return true;
    return false;
  }

  /** The lowest run that is free, of at most so many bytes, but a piece at least. */
  lowestFree(bytes: number): { readonly first: number; readonly end: number } | undefined {
    const { count } = this.#geometry;
    let first = 0;
    while (first < count && !this.#isFree(first)) first += 1;
    if (first === count) return undefined;
    const limit = this.#geometry.start(first) + bytes;
    let end = first + 1;
    while (end < count && this.#geometry.end(end) <= limit && this.#isFree(end)) end += 1;
    return { first, end };
  }

  /** Bytes that nobody has yet, leased or not. */
  get openBytes(): number {
    let bytes = 0;
    for (let piece = 0; piece < this.#geometry.count; piece += 1) {
      if (this.#missing(piece)) bytes += this.#geometry.length(piece);
    }
    return bytes;
  }

  #isFree(piece: number): boolean {
    return this.#missing(piece) && !this.isLeased(piece);
  }
}
