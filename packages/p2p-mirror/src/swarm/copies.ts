import type { PieceGeometry, PieceMap } from "../transfer/pieces.ts";

/** How many members have each piece of a blob. */
export class Copies {
  readonly #geometry: PieceGeometry;
  readonly #copies: Uint32Array;
  #bytes = 0;

  constructor(geometry: PieceGeometry) {
    this.#geometry = geometry;
    this.#copies = new Uint32Array(geometry.count);
  }

  /** Bytes of which there is a copy at least. */
  get bytes(): number {
    return this.#bytes;
  }

  of(piece: number): number {
    return this.#copies[piece] ?? 0;
  }

  /** True when it is the first one. */
  add(piece: number): boolean {
    const copies = this.of(piece) + 1;
    this.#copies[piece] = copies;
    if (copies > 1) return false;
    this.#bytes += this.#geometry.length(piece);
    return true;
  }

  /** All that a member has is gone. */
  remove(have: PieceMap): void {
    for (let piece = 0; piece < this.#geometry.count; piece += 1) {
      if (!have.has(piece)) continue;
      const copies = this.of(piece) - 1;
      this.#copies[piece] = copies;
      if (copies === 0) this.#bytes -= this.#geometry.length(piece);
    }
  }
}
