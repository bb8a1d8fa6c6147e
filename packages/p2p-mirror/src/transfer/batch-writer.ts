/**
 * Bytes gathered before they are written: sockets give them in chunks of 64 KiB at most, a write each would be slow. Twice
 * as much is in memory for each source: one batch being written, one being gathered.
 */
export const BATCH_BYTES = 512 * 1024;

/** Takes bytes that begin at `offset`; resolves when they are written. One call at a time. */
export type WriteBatch = (offset: number, chunks: readonly Buffer[]) => Promise<void>;

/** Whether somebody waits for bytes from `start` to `end` to be written, few as they are. */
export type IsDue = (start: number, end: number) => boolean;

/** Gathers consecutive bytes and writes them in batches, each write overlapping with the arrival of the next bytes. */
export class BatchWriter {
  readonly #write: WriteBatch;
  readonly #isDue: IsDue;
  #start: number;
  #batch: Buffer[] = [];
  #batched = 0;
  #writing: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;

  /** `isDue`: default, never. */
  constructor(start: number, write: WriteBatch, isDue: IsDue = () => false) {
    this.#start = start;
    this.#write = write;
    this.#isDue = isDue;
  }

  /** Undefined while there is room for more, else resolves when there is again. Throws the error of a write. */
  add(chunk: Buffer): Promise<void> | undefined {
    this.#throwIfFailed();
    this.#batch.push(chunk);
    this.#batched += chunk.length;
    if (this.#batched < BATCH_BYTES) {
      this.#beginIfDue();
      return undefined;
    }
    if (this.#writing !== undefined) return this.#flush();
    this.#begin();
    return undefined;
  }

  /** What was gathered and not written; after `end` only when a write has failed. */
  get rest(): { readonly offset: number; readonly chunks: readonly Buffer[] } {
    return { offset: this.#start, chunks: this.#batch };
  }

  /** Writes the rest. */
  async end(): Promise<void> {
    await this.#flush();
    await this.#idle();
    this.#throwIfFailed();
  }

  /** May be called while another call waits: `end` after a body that failed meanwhile. */
  async #flush(): Promise<void> {
    await this.#idle();
    this.#throwIfFailed();
    if (this.#batched > 0) this.#begin();
  }

  /** No write is under way, whoever has begun it. */
  async #idle(): Promise<void> {
    while (this.#writing !== undefined) await this.#writing;
  }

  #beginIfDue(): void {
    const idle = this.#writing === undefined && this.#failure === undefined;
    if (idle && this.#batched > 0 && this.#isDue(this.#start, this.#start + this.#batched)) this.#begin();
  }

  #begin(): void {
    const [offset, chunks] = [this.#start, this.#batch];
    this.#start += this.#batched;
    this.#batch = [];
    this.#batched = 0;
    this.#writing = this.#write(offset, chunks).then(
      () => this.#written(undefined),
      (error: unknown) => this.#written({ error }),
    );
  }

  #written(failure: { readonly error: unknown } | undefined): void {
    this.#writing = undefined;
    this.#failure ??= failure;
    this.#beginIfDue();
  }

  #throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
