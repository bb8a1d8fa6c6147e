import type { ByteRange } from "@p2p-mirror/shared";

const KIB = 1024;
/** Of an image of 16 MiB with 256 KiB eight nodes had all 0.3 s later, in simulation; 64 KiB are four times the requests. */
const SMALLEST = 128 * KIB;
const LARGEST = 8 * 1024 * KIB;
const FRONT = 256 * KIB;

/**
 * How a blob of `size` bytes is cut: pieces of size/128, a power of two between 128 KiB and 8 MiB; where that is more than
 * 256 KiB, the first piece is cut into such ones, so that the first bytes are usable early. Every node cuts alike, from the
 * size alone.
 */
export class PieceGeometry {
  readonly size: number;
  readonly pieceSize: number;
  readonly count: number;
  /** At the front, in place of the first large piece: their size, and how many. */
  readonly #front: number;
  readonly #small: number;

  constructor(size: number) {
    this.size = size;
    this.pieceSize = Math.min(
      LARGEST,
      Math.max(SMALLEST, 2 ** Math.ceil(Math.log2(Math.max(1, size / 128)))),
    );
    this.#front = Math.min(FRONT, this.pieceSize);
    this.#small = this.pieceSize / this.#front;
    this.count =
      size <= this.pieceSize
        ? Math.ceil(size / this.#front)
        : this.#small + Math.ceil((size - this.pieceSize) / this.pieceSize);
  }

  start(piece: number): number {
    return piece < this.#small ? piece * this.#front : (piece - this.#small + 1) * this.pieceSize;
  }

  /** One past the last byte. */
  end(piece: number): number {
    return Math.min(this.size, this.start(piece + 1));
  }

  length(piece: number): number {
    return this.end(piece) - this.start(piece);
  }

  /** The piece that holds the byte at `offset`. */
  at(offset: number): number {
    return offset < this.pieceSize
      ? Math.floor(offset / this.#front)
      : this.#small + Math.floor(offset / this.pieceSize) - 1;
  }

  range(first: number, last: number): ByteRange {
    return { start: this.start(first), end: this.end(last) };
  }
}

/** Which pieces are there. */
export class PieceMap {
  readonly #bits: Uint8Array;
  #count = 0;

  constructor(count: number) {
    this.#bits = new Uint8Array(count);
  }

  get count(): number {
    return this.#count;
  }

  get complete(): boolean {
    return this.#count === this.#bits.length;
  }

  has(piece: number): boolean {
    return this.#bits[piece] === 1;
  }

  set(piece: number): void {
    if (this.#bits[piece] === 0) this.#count += 1;
    this.#bits[piece] = 1;
  }

  clear(piece: number): void {
    if (this.#bits[piece] === 1) this.#count -= 1;
    this.#bits[piece] = 0;
  }
}
