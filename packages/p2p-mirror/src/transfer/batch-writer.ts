/** Bytes gathered before they are written: TLS gives them in records of 16 KiB at most, a write each would be slow. */
const BATCH_BYTES = 512 * 1024;

export interface BatchTarget {
  /** Takes bytes that begin at `offset`; resolves when they are written. One call at a time. */
  write(offset: number, buffers: readonly Buffer[]): Promise<void>;
  /** A reader waits for the byte at `offset`: write what there is, do not gather. */
  urgent(offset: number): boolean;
}

/** Gathers consecutive bytes and writes them in batches, each write overlapping with the arrival of the next bytes. */
export class BatchWriter {
  readonly #target: BatchTarget;
  #start: number;
  #batch: Buffer[] = [];
  #batched = 0;
  #writing: Promise<void> | undefined;
  #failure: { readonly error: unknown } | undefined;

  constructor(start: number, target: BatchTarget) {
    this.#start = start;
    this.#target = target;
  }

  /** Undefined while there is room for more, else resolves when there is again. Throws the error of a write. */
  add(chunk: Buffer): Promise<void> | undefined {
    this.#throwIfFailed();
    this.#batch.push(chunk);
    this.#batched += chunk.length;
    if (this.#batched >= BATCH_BYTES) {
      if (this.#writing !== undefined) return this.#flush().then(() => this.#throwIfFailed());
      this.#begin();
    } else {
      this.#flushIfUrgent();
    }
    return undefined;
  }

  /** Writes the rest. */
  async end(): Promise<void> {
    if (this.#batched > 0) await this.#flush();
    await this.#writing;
    this.#throwIfFailed();
  }

  async #flush(): Promise<void> {
    await this.#writing;
    // An urgent reader may have had it written meanwhile.
    if (this.#batched > 0 && this.#failure === undefined) this.#begin();
  }

  #flushIfUrgent(): void {
    if (this.#writing !== undefined || this.#batched === 0 || this.#failure !== undefined) return;
    if (this.#target.urgent(this.#start)) this.#begin();
  }

  #begin(): void {
    const [offset, buffers] = [this.#start, this.#batch];
    this.#start += this.#batched;
    this.#batch = [];
    this.#batched = 0;
    this.#writing = this.#write(offset, buffers);
  }

  async #write(offset: number, buffers: readonly Buffer[]): Promise<void> {
    try {
      await this.#target.write(offset, buffers);
    } catch (error) {
      this.#failure = { error };
    }
    this.#writing = undefined;
    this.#flushIfUrgent();
  }

  #throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
