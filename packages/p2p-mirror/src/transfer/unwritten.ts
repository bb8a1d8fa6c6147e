/**
 * Chunks that have arrived and are on their way to the spool. A reader that keeps up is fed from here, without the way
 * through the file: writes can then be large, and the file is not read back.
 */
export class Unwritten {
  readonly #chunks = new Map<number, Buffer>();

  add(offset: number, chunk: Buffer): void {
    this.#chunks.set(offset, chunk);
  }

  /** They are in the spool now, or were lost on the way. */
  remove(offset: number, chunks: readonly Buffer[]): void {
    let at = offset;
    for (const chunk of chunks) {
      if (this.#chunks.get(at) === chunk) this.#chunks.delete(at);
      at += chunk.length;
    }
  }

  /** The chunk that begins at `offset`. */
  get(offset: number): Buffer | undefined {
    return this.#chunks.get(offset);
  }
}
