import { createHash, type Hash } from "node:crypto";
import type { PieceGeometry } from "./pieces.ts";

/** The sha256 of pieces whose bytes go by, in order, from wherever each begins. */
export class PassingHashes {
  readonly #geometry: PieceGeometry;
  /** And how far they are. */
  readonly #hashing = new Map<number, { readonly hash: Hash; at: number }>();

  constructor(geometry: PieceGeometry) {
    this.#geometry = geometry;
  }

  /** `begin`: also pieces that begin here; else only those that are under way. */
  add(offset: number, parts: readonly Buffer[], begin: boolean): void {
    if (!begin && this.#hashing.size === 0) return;
    let at = offset;
    for (const part of parts) {
      for (let rest = part; rest.length > 0;) {
        const piece = this.#geometry.at(at);
        const bytes = rest.subarray(0, this.#geometry.end(piece) - at);
        if (at === this.#geometry.start(piece)) {
          // What began it before is not what it begins with now.
          this.#hashing.delete(piece);
          if (begin) this.#hashing.set(piece, { hash: createHash("sha256"), at });
        }
        const hashing = this.#hashing.get(piece);
        if (hashing?.at === at) {
          hashing.hash.update(bytes);
          hashing.at += bytes.length;
        }
        at += bytes.length;
        rest = rest.subarray(bytes.length);
      }
    }
  }

  forget(piece: number): void {
    this.#hashing.delete(piece);
  }

  /** Of a piece that has gone by from its first byte to its last; undefined for one that was resumed in its middle, or not begun. */
  take(piece: number): Buffer | undefined {
    const hashing = this.#hashing.get(piece);
    this.#hashing.delete(piece);
    return hashing?.at === this.#geometry.end(piece) ? hashing.hash.digest() : undefined;
  }
}
