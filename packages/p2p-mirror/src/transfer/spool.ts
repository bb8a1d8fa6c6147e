import type { BufferPool } from "@p2p-mirror/shared";
import type { Ingest } from "../store/blob-cache.ts";

/** Where the bytes of a flight are until they are verified. Offsets are those of the blob. */
export interface Spool {
  /** Writes buffers one after the other from `offset`. May wait for room; afterwards the buffers are the caller's again. */
  write(offset: number, buffers: readonly Buffer[]): Promise<void>;
  /**
   * Writes what may prove wrong and is written again then, anywhere. @throws when it cannot be kept as a file would: then
   * none of it will be read.
   */
  writeUnchecked(offset: number, buffers: readonly Buffer[]): Promise<void>;
  /** Up to `length` bytes from `offset`, all of which were written before; at least one. */
  read(offset: number, length: number): Promise<Buffer>;
  /** Takes back a buffer that `read` gave and nobody looks at any more. */
  recycle(chunk: Uint8Array): void;
  /** What was written may be wrong and will be written again: whatever would come before the new bytes is dropped. */
  discard(): void;
  /** Everything below is read and hashed by all: it may go. */
  forget(below: number): void;
  /** First offset that can still be read. */
  readonly base: number;
  /** It holds so many bytes that its slowest reader has not read yet. */
  readonly room: number;
  /** Holds a window only, which moves with the slowest reader: to be filled in order, or it would wait for itself. */
  readonly windowed: boolean;
  /** All of it is in memory, or a part. */
  readonly inMemory: boolean;
  commit(): Promise<void>;
  release(): Promise<void>;
}

/** As much as is read at once; such buffers go round instead of becoming garbage. */
export const READ_BYTES = 256 * 1024;

/** A sparse file in the cache's ingest folder; becomes the cached blob by a rename. */
export class FileSpool implements Spool {
  readonly base = 0;
  readonly room = Infinity;
  readonly windowed = false;
  readonly inMemory = false;
  readonly #ingest: Ingest;
  /** What went out, and the buffer it is in: each may come back once. */
  readonly #lent = new WeakMap<Uint8Array, Buffer>();
  readonly #pool: BufferPool;

  /** `pool`: of buffers of `READ_BYTES`, for all spools together. */
  constructor(ingest: Ingest, pool: BufferPool) {
    this.#ingest = ingest;
    this.#pool = pool;
  }

  async write(offset: number, buffers: readonly Buffer[]): Promise<void> {
    let rest: readonly Buffer[] = buffers;
    let at = offset;
    for (;;) {
      const { bytesWritten } = await this.#ingest.file.writev(rest, at);
      at += bytesWritten;
      let skip = bytesWritten;
      let whole = 0;
      while (whole < rest.length && skip >= (rest[whole]?.length ?? 0)) {
        skip -= rest[whole]?.length ?? 0;
        whole += 1;
      }
      if (whole === rest.length) return;
      rest = rest.slice(whole).map((buffer, index) => (index === 0 ? buffer.subarray(skip) : buffer));
    }
  }

  writeUnchecked(offset: number, buffers: readonly Buffer[]): Promise<void> {
    return this.write(offset, buffers);
  }

  async read(offset: number, length: number): Promise<Buffer> {
    // Of full size however little is there: a reader at the heels of the writer asks for odd lengths all the time.
    const buffer = this.#pool.take(READ_BYTES);
    const { bytesRead } = await this.#ingest.file.read(buffer, 0, Math.min(length, READ_BYTES), offset);
    if (bytesRead === 0) throw new Error(`the spool ends at ${offset}`);
    const chunk = buffer.subarray(0, bytesRead);
    this.#lent.set(chunk, buffer);
    return chunk;
  }

  recycle(chunk: Uint8Array): void {
    const buffer = this.#lent.get(chunk);
    if (buffer === undefined) return;
    this.#lent.delete(chunk);
    this.#pool.give(buffer);
  }

  discard(): void {
    // A file is simply written over.
  }

  forget(): void {
    // A file keeps everything until it is committed or released.
  }

  commit(): Promise<void> {
    return this.#ingest.commit();
  }

  release(): Promise<void> {
    return this.#ingest.release();
  }
}

/** Memory for all of a blob, for when a small one cannot be stored: written in any order, as a file. */
export class WholeSpool implements Spool {
  readonly base = 0;
  readonly room = Infinity;
  readonly windowed = false;
  readonly inMemory = true;
  #bytes: Buffer;

  /** `size` of the blob, in bytes. */
  constructor(size: number) {
    this.#bytes = Buffer.alloc(size);
  }

  write(offset: number, buffers: readonly Buffer[]): Promise<void> {
    this.keep(offset, buffers);
    return Promise.resolve();
  }

  writeUnchecked(offset: number, buffers: readonly Buffer[]): Promise<void> {
    return this.write(offset, buffers);
  }

  keep(offset: number, buffers: readonly Buffer[]): void {
    let at = offset;
    for (const buffer of buffers) at += buffer.copy(this.#bytes, at);
  }

  read(offset: number, length: number): Promise<Buffer> {
    const chunk = this.#bytes.subarray(offset, offset + length);
    if (chunk.length === 0) return Promise.reject(new Error(`the spool ends at ${offset}`));
    return Promise.resolve(chunk);
  }

  recycle(): void {
    // Chunks are parts of what is kept.
  }

  discard(): void {
    // It is written over.
  }

  forget(): void {
    // Others may want it still.
  }

  commit(): Promise<void> {
    return Promise.resolve();
  }

  release(): Promise<void> {
    this.#bytes = Buffer.alloc(0);
    return Promise.resolve();
  }
}

/**
 * A window of memory that moves with the slowest reader, for when nothing can be stored (disk full, cache off). Writers
 * ahead of the window wait; whoever comes late and wants bytes below `base` needs a flight of its own.
 */
export class MemorySpool implements Spool {
  readonly windowed = true;
  readonly inMemory = true;
  base = 0;
  readonly room: number;
  readonly #chunks = new Map<number, Buffer>();
  #starts: number[] = [];
  #held = 0;
  #waiting: { readonly end: number; readonly go: () => void }[] = [];
  #released = false;

  /** `capacity` in bytes: how far a writer may be ahead of the slowest reader. */
  constructor(capacity: number) {
    this.room = capacity;
  }

  async write(offset: number, buffers: readonly Buffer[]): Promise<void> {
    let at = offset;
    for (const buffer of buffers) {
      const end = at + buffer.length;
      if (end > this.base + this.room && !this.#released) {
        await new Promise<void>((resolve) => this.#waiting.push({ end, go: resolve }));
      }
      if (this.#released) throw new Error("the spool is closed");
      this.#insert(at, Buffer.from(buffer));
      at = end;
    }
  }

  writeUnchecked(_offset?: number, _buffers?: readonly Buffer[]): Promise<void> {
    return Promise.reject(new Error("a window is filled in order, with what is right"));
  }

  /** Writes without waiting for room, so that the window is larger for a while. */
  keep(offset: number, buffers: readonly Buffer[]): void {
    let at = offset;
    for (const buffer of buffers) {
      this.#insert(at, Buffer.from(buffer));
      at += buffer.length;
    }
  }

  read(offset: number, length: number): Promise<Buffer> {
    let low = 0;
    let high = this.#starts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#starts[middle] ?? 0) <= offset) low = middle + 1;
      else high = middle;
    }
    const start = this.#starts[low - 1] ?? -1;
    const chunk = this.#chunks.get(start);
    if (chunk === undefined || start + chunk.length <= offset) {
      return Promise.reject(new Error(`the spool has nothing at ${offset}`));
    }
    return Promise.resolve(chunk.subarray(offset - start, offset - start + length));
  }

  recycle(): void {
    // Chunks are parts of what is kept.
  }

  discard(): void {
    this.#chunks.clear();
    this.#starts = [];
    this.#held = 0;
  }

  forget(below: number): void {
    if (below <= this.base) return;
    this.base = below;
    let gone = 0;
    for (const start of this.#starts) {
      const chunk = this.#chunks.get(start);
      if (chunk === undefined || start + chunk.length > below) break;
      this.#chunks.delete(start);
      this.#held -= chunk.length;
      gone += 1;
    }
    this.#starts.splice(0, gone);
    this.#wake();
  }

  /** Bytes in memory now. */
  get held(): number {
    return this.#held;
  }

  commit(): Promise<void> {
    return Promise.resolve();
  }

  release(): Promise<void> {
    this.#released = true;
    this.#chunks.clear();
    this.#starts = [];
    this.#held = 0;
    this.#wake();
    return Promise.resolve();
  }

  #insert(at: number, buffer: Buffer): void {
    const last = this.#starts.at(-1);
    if (!this.#chunks.has(at)) {
      if (last === undefined || last < at) this.#starts.push(at);
      else
        this.#starts.splice(
          this.#starts.findIndex((start) => start > at),
          0,
          at,
        );
    }
    this.#held += buffer.length - (this.#chunks.get(at)?.length ?? 0);
    this.#chunks.set(at, buffer);
  }

  #wake(): void {
    const limit = this.base + this.room;
    const ready = this.#waiting.filter((one) => this.#released || one.end <= limit);
    this.#waiting = this.#waiting.filter((one) => !ready.includes(one));
    for (const one of ready) one.go();
  }
}
