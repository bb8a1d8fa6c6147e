import type { MemorySpool, Spool, WholeSpool } from "./spool.ts";

/**
 * Writes to the first spool until that fails (disk full, I/O error), then goes on in memory: readers notice nothing, the
 * blob is just not stored. What was written before stays readable.
 */
export class DegradingSpool implements Spool {
  readonly #first: Spool;
  readonly #inTheEnd: () => MemorySpool | WholeSpool;
  readonly #onDegrade: (error: unknown) => void;
  #memory: MemorySpool | WholeSpool | undefined;
  /** What is in memory and not in the first spool, in the order of writing, gapless ranges in one. */
  readonly #inMemory: { readonly start: number; end: number }[] = [];
  #forgotten = 0;

  /** `inTheEnd`: where the rest goes. */
  constructor(first: Spool, inTheEnd: () => MemorySpool | WholeSpool, onDegrade: (error: unknown) => void) {
    this.#first = first;
    this.#inTheEnd = inTheEnd;
    this.#onDegrade = onDegrade;
  }

  get base(): number {
    return this.#memory?.base ?? 0;
  }

  get room(): number {
    return (this.#memory ?? this.#first).room;
  }

  get windowed(): boolean {
    return this.#memory?.windowed === true;
  }

  get inMemory(): boolean {
    return this.#memory !== undefined;
  }

  /**
   * The bytes of the write that fails stay, in memory, whether there is room or not: readers may have them already, so it
   * is these that must be hashed, and to wait for room here could be to wait for oneself.
   */
  async write(offset: number, buffers: readonly Buffer[]): Promise<void> {
    if (this.#memory !== undefined) {
      this.#note(offset, buffers);
      return this.#memory.write(offset, buffers);
    }
    try {
      await this.#first.write(offset, buffers);
    } catch (error) {
      this.#memory ??= this.#degrade(error);
      this.#note(offset, buffers);
      this.#memory.keep(offset, buffers);
    }
  }

  /** In a window nothing of it stays when the first spool fails: it would lie in the way of what is right. */
  async writeUnchecked(offset: number, buffers: readonly Buffer[]): Promise<void> {
    if (this.#memory === undefined) {
      try {
        return await this.#first.writeUnchecked(offset, buffers);
      } catch (error) {
        this.#memory ??= this.#degrade(error);
        if (this.#memory.windowed) throw error;
      }
    }
    await this.#memory.writeUnchecked(offset, buffers);
    this.#note(offset, buffers);
  }

  read(offset: number, length: number): Promise<Buffer> {
    if (this.#memory === undefined) return this.#first.read(offset, length);
    let until = offset + length;
    for (const part of this.#inMemory) {
      if (offset >= part.start && offset < part.end)
        return this.#memory.read(offset, Math.min(length, part.end - offset));
      if (part.start > offset) until = Math.min(until, part.start);
    }
    return this.#first.read(offset, until - offset);
  }

  recycle(chunk: Uint8Array): void {
    this.#first.recycle(chunk);
  }

  discard(): void {
    if (this.#memory?.windowed !== true) return;
    this.#memory.discard();
    this.#inMemory.length = 0;
  }

  forget(below: number): void {
    this.#forgotten = Math.max(this.#forgotten, below);
    this.#memory?.forget(below);
  }

  commit(): Promise<void> {
    return this.#memory === undefined ? this.#first.commit() : Promise.resolve();
  }

  async release(): Promise<void> {
    await this.#memory?.release();
    await this.#first.release();
  }

  #note(offset: number, buffers: readonly Buffer[]): void {
    const end = offset + buffers.reduce((sum, buffer) => sum + buffer.length, 0);
    const last = this.#inMemory.at(-1);
    if (last?.end === offset) last.end = end;
    else this.#inMemory.push({ start: offset, end });
  }

  #degrade(error: unknown): MemorySpool | WholeSpool {
    this.#onDegrade(error);
    const memory = this.#inTheEnd();
    memory.forget(this.#forgotten);
    return memory;
  }
}
