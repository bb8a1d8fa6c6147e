/**
 * Read buffers that go round instead of becoming garbage. Garbage costs a server of blobs twice: V8 lets some 64 MiB of
 * buffers pile up before it collects, and memory that is new each time has to be mapped and faulted in.
 */
export class BufferPool {
  readonly #bytes: number;
  readonly #maxFree: number;
  readonly #free: Buffer[] = [];

  /** Buffers of `bytes` each; at most `maxFree` unused ones are kept, default 16. */
  constructor(bytes: number, maxFree = 16) {
    this.#bytes = bytes;
    this.#maxFree = maxFree;
  }

  /** With whatever bytes it last held. A smaller size than the pool's gets a buffer of its own. */
  take(bytes: number): Buffer {
    const free = bytes === this.#bytes ? this.#free.pop() : undefined;
    // Not from Node's shared slab, which others also write to.
    return free ?? Buffer.allocUnsafeSlow(bytes);
  }

  give(buffer: Buffer): void {
    if (buffer.length === this.#bytes && this.#free.length < this.#maxFree) this.#free.push(buffer);
  }
}
