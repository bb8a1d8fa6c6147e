import type { Clock } from "@p2p-mirror/shared";
import type { PieceGeometry, PieceMap } from "../transfer/pieces.ts";
import { TIMES } from "./times.ts";

/** HAVE is sent at once when so many pieces wait; of blobs with many pieces, more; of one with fewer, when these are all. */
const HAVE_PIECES = 8;
const MANY_PIECES = 128;
const LONGEST_BATCH_MS = 1_000;
/** A batch takes this part of the time the pull has taken, or will still take, whichever is shorter. */
const BATCHES = 30;
/**
 * News of a piece that others have, too, wait so many times as long, and a random half more or less. In simulation 204 ->
 * 143 messages a node with 4 nodes, 363 -> 223 with 100, all at the same speed.
 */
const SPREAD_FACTOR = 3;
export interface HaveNewsDeps {
  readonly geometry: PieceGeometry;
  readonly clock: Clock;
  readonly random: () => number;
  /** What is here. */
  readonly have: PieceMap;
  /** Others have this piece, too, and tell of it. */
  readonly isSpread: (piece: number) => boolean;
  /** What neighbours are told now. */
  readonly tell: (pieces: readonly number[]) => void;
}

/** Pieces that this node has and has not told of: HAVE is sent in batches. */
export class HaveNews {
  readonly #deps: HaveNewsDeps;
  readonly #began: number;
  readonly #scale: number;
  #pieces: number[] = [];
  #cancel: (() => void) | undefined;
  #dueAt = Infinity;

  constructor(deps: HaveNewsDeps) {
    this.#deps = deps;
    this.#began = deps.clock.now();
    this.#scale = Math.ceil(deps.geometry.count / (2 * MANY_PIECES));
  }

  /** This node has a piece now. */
  add(piece: number): void {
    const { geometry, clock, random, isSpread } = this.#deps;
    this.#pieces.push(piece);
    if (this.#pieces.length >= Math.min(HAVE_PIECES * this.#scale, geometry.count)) return this.flush();
    // Not all who have had it from the same one in the same moment: who is first spares the others their message.
    const factor = isSpread(piece) ? SPREAD_FACTOR * (0.5 + random()) : 1;
    const ms = factor * this.#batchMs();
    const at = clock.now() + ms;
    if (at >= this.#dueAt) return;
    this.#dueAt = at;
    this.#cancel?.();
    this.#cancel = clock.after(ms, () => this.flush());
  }

  /** Tells what there is to tell, without waiting for more; nothing is due after it. */
  flush(): void {
    this.#dueAt = Infinity;
    this.#cancel?.();
    this.#cancel = undefined;
    this.#deps.tell(this.#pieces.splice(0));
  }

  /**
   * In the midst of a pull nobody is waiting for one piece; in its first moments and at its end all are. Pieces of a large
   * blob come as often in a second as those of a small one, for longer: messages should not become more by that.
   */
  #batchMs(): number {
    const { geometry, clock, have } = this.#deps;
    const took = clock.now() - this.#began;
    const left = (took * (geometry.count - have.count)) / Math.max(1, have.count);
    const batch = Math.max(TIMES.have * this.#scale, Math.min(took, left) / BATCHES);
    return Math.min(LONGEST_BATCH_MS, batch);
  }
}
