import { createHash } from "node:crypto";
import type { Readable } from "node:stream";
import { consume, IntegrityError, isRecycling, raceSignal } from "@p2p-mirror/shared";
import type { PieceHere } from "./content.ts";

/** What is needed of a piece for that. Once signed, who asks after that needs no hash. */
export type UnhashedPiece = Pick<PieceHere, "length" | "open" | "sign">;

interface Run {
  readonly result: Promise<void>;
  readonly abort: AbortController;
  waiting: number;
}

/** One is read from the disk while the other is hashed, on the main thread. */
const AT_ONCE = 2;

/**
 * Hashes pieces that are here without a hash, of stored blobs and of flights: a piece once for all who ask at the same time, two pieces at a time. A store that hashes
 * a whole blob before it gives out a piece holds up only those who want that blob. What nobody waits for any more ends.
 */
export class PieceHasher {
  readonly #runs = new Map<string, Run>();
  readonly #queue = new Set<() => void>();
  #free = AT_ONCE;

  /**
   * Resolves when it was signed, this piece or the one with the same key that was under way.
   * @param key the same for the same bytes: who comes while they are read waits for that
   * @throws IntegrityError (`SIZE_MISMATCH`) when it is short, what `open` throws, the signal's reason
   */
  async hash(key: string, piece: UnhashedPiece, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const run = this.#runs.get(key) ?? this.#begin(key, piece);
    run.waiting += 1;
    try {
      await raceSignal(run.result, signal);
    } finally {
      run.waiting -= 1;
      if (run.waiting === 0) this.#end(key, run);
    }
  }

  #begin(key: string, piece: UnhashedPiece): Run {
    const abort = new AbortController();
    const run: Run = { abort, waiting: 0, result: this.#run(piece, abort.signal) };
    this.#runs.set(key, run);
    const over = (): void => this.#end(key, run);
    run.result.then(over, over);
    return run;
  }

  #end(key: string, run: Run): void {
    if (this.#runs.get(key) === run) this.#runs.delete(key);
    run.abort.abort();
  }

  async #run(piece: UnhashedPiece, signal: AbortSignal): Promise<void> {
    const body = await piece.open({ signal });
    try {
      await this.#turn(signal);
      try {
        piece.sign(await raceSignal(sha256(body, piece.length), signal));
      } finally {
        this.#next();
      }
    } finally {
      body.on("error", () => undefined).destroy();
    }
  }

  async #turn(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    if (this.#free > 0) {
      this.#free -= 1;
      return;
    }
    const turn = Promise.withResolvers<void>();
    this.#queue.add(turn.resolve);
    try {
      await raceSignal(turn.promise, signal);
    } catch (error) {
      // It may have come in the very moment of the abort: then it is the next one's.
      if (!this.#queue.delete(turn.resolve)) this.#next();
      throw error;
    }
  }

  #next(): void {
    const [first] = this.#queue;
    if (first === undefined) {
      this.#free += 1;
      return;
    }
    this.#queue.delete(first);
    first();
  }
}

async function sha256(body: Readable, length: number): Promise<Uint8Array> {
  const hash = createHash("sha256");
  let bytes = 0;
  await consume(body, (chunk) => {
    hash.update(chunk);
    bytes += chunk.byteLength;
    if (isRecycling(body)) body.recycle(chunk);
    return true;
  });
  if (bytes !== length) {
    throw new IntegrityError("SIZE_MISMATCH", `${length} bytes of a piece`, `${bytes} bytes`, "a store");
  }
  return hash.digest();
}
