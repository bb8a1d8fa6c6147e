import { algorithmOf, Hasher, type Digest } from "@p2p-mirror/shared";
import { READ_BYTES, type Spool } from "./spool.ts";

/**
 * The digest of a blob whose pieces come in any order: hashed from the front as far as the bytes are there without a
 * hole. Bytes that arrive right at the front are hashed from memory, those behind a hole are read back later.
 */
export class PrefixHash {
  readonly #digest: Digest;
  readonly #spool: Spool;
  #hasher: Hasher;
  #reading: Promise<void> | undefined;

  constructor(digest: Digest, spool: Spool) {
    this.#digest = digest;
    this.#spool = spool;
    this.#hasher = new Hasher(algorithmOf(digest));
  }

  /** Bytes hashed, from the first one on. */
  get size(): number {
    return this.#hasher.size;
  }

  /** Bytes that are about to be written at `offset`; hashed now when they are next. */
  offer(offset: number, buffers: readonly Buffer[]): void {
    if (this.#reading !== undefined || offset !== this.size) return;
    for (const buffer of buffers) this.#hasher.update(buffer);
  }

  /** Hashes what the spool has up to `end()`, which may move on meanwhile. One at a time; further calls join. */
  catchUp(end: () => number): Promise<void> {
    this.#reading ??= this.#readBack(end).finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  }

  /** Ends the hash: true when all of it is what the digest says. Starts afresh either way. */
  finish(): { readonly ok: boolean; readonly found: Digest } {
    const found = this.#hasher.digest();
    this.#hasher = new Hasher(algorithmOf(this.#digest));
    return { ok: found === this.#digest, found };
  }

  async #readBack(end: () => number): Promise<void> {
    while (this.size < end()) {
      const buffer = await this.#spool.read(this.size, Math.min(READ_BYTES, end() - this.size));
      this.#hasher.update(buffer);
      this.#spool.recycle(buffer);
    }
  }
}
