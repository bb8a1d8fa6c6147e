interface Held {
  readonly chunk: Buffer;
  /** Readers may have it. */
  readonly released: boolean;
  /** Who still looks at it: the writer, and readers that took it. */
  holders: number;
  /** Gives the memory back. */
  readonly recycle: ((chunk: Buffer) => void) | undefined;
}

/**
 * Chunks that have arrived and are on their way to the spool. A reader that keeps up is fed from here, without the way
 * through the file: writes can then be large, and the file is not read back. A chunk goes back to where it came from when
 * it is written and every reader that took it has given it back.
 */
export class Unwritten {
  readonly #chunks = new Map<number, Held>();
  /** Given to readers. Weak: a reader that fails just drops what it has. */
  readonly #lent = new WeakMap<Uint8Array, Held>();

  add(
    offset: number,
    chunk: Buffer,
    released: boolean,
    recycle: ((chunk: Buffer) => void) | undefined,
  ): void {
    this.#chunks.set(offset, { chunk, released, holders: 1, recycle });
  }

  /** They are in the spool now, or were lost on the way. */
  remove(offset: number, chunks: readonly Buffer[]): void {
    let at = offset;
    for (const chunk of chunks) {
      const held = this.#chunks.get(at);
      at += chunk.length;
      if (held?.chunk !== chunk) continue;
      this.#chunks.delete(at - chunk.length);
      letGo(held);
    }
  }

  /** Up to `max` bytes from `offset` on, if they are here and readers may have them; to be given back by `recycle`. */
  get(offset: number, max: number): Buffer | undefined {
    const [start, held] = this.#at(offset) ?? [];
    if (start === undefined || held?.released !== true) return undefined;
    const part = held.chunk.subarray(offset - start, offset - start + max);
    held.holders += 1;
    this.#lent.set(part, held);
    return part;
  }

  /** A reader is done with what `get` gave it; anything else is ignored. */
  recycle(chunk: Uint8Array): void {
    const held = this.#lent.get(chunk);
    if (held === undefined) return;
    this.#lent.delete(chunk);
    letGo(held);
  }

  /** A reader that fell behind and read from the spool is somewhere within a chunk when it has caught up again. */
  #at(offset: number): readonly [start: number, held: Held] | undefined {
    const exact = this.#chunks.get(offset);
    if (exact !== undefined) return [offset, exact];
    for (const [start, held] of this.#chunks) {
      if (start < offset && offset < start + held.chunk.length) return [start, held];
    }
    return undefined;
  }
}

function letGo(held: Held): void {
  held.holders -= 1;
  if (held.holders === 0) held.recycle?.(held.chunk);
}
