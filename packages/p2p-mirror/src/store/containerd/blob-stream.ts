import { Readable } from "node:stream";
import type { LinkedSignal } from "@p2p-mirror/shared";

/**
 * Chunks of an async iterator as a byte stream. Unlike `Readable.from` it ends at once when destroyed, although the
 * iterator waits for a server that is silent: `link` is aborted, which cancels the call behind it.
 */
export class BlobStream extends Readable {
  readonly #chunks: AsyncIterator<Buffer, void, undefined>;
  readonly #link: LinkedSignal;

  constructor(chunks: AsyncIterator<Buffer, void, undefined>, link: LinkedSignal) {
    super({ highWaterMark: 1 });
    this.#chunks = chunks;
    this.#link = link;
  }

  override _read(): void {
    void this.#pull();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#link.abort();
    this.#link.release();
    void this.#leave();
    callback(error);
  }

  async #pull(): Promise<void> {
    try {
      const next = await this.#chunks.next();
      if (!this.destroyed) this.push(next.done === true ? null : next.value);
    } catch (error) {
      this.destroy(error instanceof Error ? error : new Error("read failed", { cause: error }));
    }
  }

  /** The iterator may be waiting; it ends when its call does, and what it then throws is nobody's business any more. */
  async #leave(): Promise<void> {
    await this.#chunks.return?.().catch(() => undefined);
  }
}
