import type { PieceGeometry, PieceMap } from "./pieces.ts";

/** A run with less left than this is not split: by the time a second source has answered it is over. */
const MIN_SPLIT_BYTES = 4 * 1024 * 1024;

/** Consecutive pieces that one source was asked for in one request. `end` moves down when another source takes a part. */
export interface Run {
  readonly first: number;
  /** One past the last piece. */
  end: number;
  /** The piece whose bytes are coming in now; those before it are done. */
  next: number;
}

/**
 * Decides which pieces a source is asked for. One source alone gets everything in one request; the next one takes the
 * second half of the longest run that is under way, so that a few requests keep any number of sources busy until the
 * end, each at its own speed. Work is handed out lowest first, since readers read in order.
 */
export class Picker {
  readonly #geometry: PieceGeometry;
  readonly #done: PieceMap;
  readonly #runs = new Set<Run>();

  constructor(geometry: PieceGeometry, done: PieceMap) {
    this.#geometry = geometry;
    this.#done = done;
  }

  /**
   * The next run for a source, or undefined when there is nothing (left) worth another request. Open pieces from
   * `preferred` on come before those below it.
   */
  take(preferred = 0): Run | undefined {
    const run = this.#gap(preferred) ?? this.#gap(0) ?? this.#half();
    if (run !== undefined) this.#runs.add(run);
    return run;
  }

  /** The lowest open pieces of `[first, end)`, for a source that was told to bring these. */
  takeWithin(first: number, end: number): Run | undefined {
    const run = this.#gap(first);
    if (run === undefined || run.first >= end) return undefined;
    run.end = Math.min(run.end, end);
    this.#runs.add(run);
    return run;
  }

  /**
   * Makes the run longer, to the last open piece below `end` before one that is asked for elsewhere: what is here in between
   * comes once more, and is passed over. True when it is longer now.
   */
  stretch(run: Run, end: number): boolean {
    const before = run.end;
    for (let piece = before; piece < end; piece += 1) {
      if (this.#done.has(piece)) continue;
      if (this.#taken(piece)) break;
      run.end = piece + 1;
    }
    return run.end > before;
  }

  /** One open piece: the first from `from` on, or from the beginning when there is none. */
  takeOne(from: number): Run | undefined {
    const run = this.#gap(from) ?? this.#gap(0);
    if (run === undefined) return undefined;
    run.end = run.first + 1;
    this.#runs.add(run);
    return run;
  }

  /** Neither here nor asked for. */
  isFree(piece: number): boolean {
    return !this.#taken(piece);
  }

  /** The run's request is over; what it did not deliver is open again. */
  release(run: Run): void {
    this.#runs.delete(run);
  }

  /** The run that would come to a piece after more than `bytes` others only; undefined when that is near, or here. */
  farFrom(piece: number, bytes: number): Run | undefined {
    if (this.#done.has(piece)) return undefined;
    for (const run of this.#runs) {
      const before = this.#geometry.start(piece) - this.#geometry.start(run.next);
      if (piece >= run.next && piece < run.end) return before > bytes ? run : undefined;
    }
    return undefined;
  }

  /** The lowest pieces from `from` on that are neither there nor asked for. */
  #gap(from: number): Run | undefined {
    let first = from;
    while (first < this.#geometry.count && this.#taken(first)) first += 1;
    if (first === this.#geometry.count) return undefined;
    let end = first + 1;
    while (end < this.#geometry.count && !this.#taken(end)) end += 1;
    return { first, end, next: first };
  }

  #taken(piece: number): boolean {
    if (this.#done.has(piece)) return true;
    for (const run of this.#runs) if (piece >= run.next && piece < run.end) return true;
    return false;
  }

  /** The second half of what the longest run has left, when that is worth a request and a cut connection. */
  #half(): Run | undefined {
    let longest: Run | undefined;
    for (const run of this.#runs) {
      if (longest === undefined || run.end - run.next > longest.end - longest.next) longest = run;
    }
    if (longest === undefined || longest.end - longest.next < 3) return undefined;
    if (this.#geometry.end(longest.end - 1) - this.#geometry.start(longest.next) < MIN_SPLIT_BYTES)
      return undefined;
    let middle = longest.next + Math.ceil((longest.end - longest.next) / 2);
    while (middle < longest.end && this.#done.has(middle)) middle += 1;
    if (middle === longest.end) return undefined;
    const run = { first: middle, end: longest.end, next: middle };
    longest.end = middle;
    return run;
  }
}
