import type { OnReadOpts, Socket } from "node:net";
import { Duplex } from "node:stream";
import type { BlockFiller, BlockPool } from "./block-pool.ts";
import { joinPart } from "./recycling.ts";

/** Sockets read into this, whichever of them; TLS gives its records one by one. What is in it is copied at once. */
const READ_BYTES = 64 * 1024;
const scratch = new Uint8Array(READ_BYTES);

/**
 * After so many bytes an answer is a long body, and no small object that is wanted whole: what follows may wait for more of
 * it. After 64 KiB already, so that pieces are gathered, too, a crowd took no less CPU, and a small layer 8 ms longer.
 */
const BODY_AFTER_BYTES = 2 * 1024 * 1024;
/**
 * From a link slower than the processor each TLS record comes alone, and costs what all of these cost. At 200 Mbit/s a GiB
 * took 18.5 s of CPU without, 14.2 with it (`bench flash-crowd --cost`, the plain fetch, minutes apart).
 */
const GATHER_BYTES = 128 * 1024;
/** The longest that the last bytes of a body wait for others. */
const GATHER_MS = 8;

/**
 * A TCP or TLS connection whose bytes arrive in blocks of a pool, for undici. node:tls gives every record of 16 KiB as a Buffer of its own:
 * at 1 GB/s that is 60,000 pieces of garbage a second, and whatever is done with them (a hash, a write to a file or a
 * socket) is done 60,000 times. Here all records that are there in one turn of the event loop come as one. For a mirror
 * that relays 512 MiB: 3 full collections instead of 40, 2.9 s of CPU per GiB instead of 3.8 to 5.1 (`bench relay`). Over
 * TCP node:net gives 64 KiB at a time, which are as much garbage in the end: 80 MiB of it while two blobs come in.
 */
export class BlockSocket extends Duplex {
  /** To be given to `connect` of node:net or node:tls. */
  readonly onread: OnReadOpts = {
    buffer: scratch,
    callback: (length: number, bytes: Uint8Array) => this.#arrived(bytes.subarray(0, length)),
  };
  #below: Socket | undefined;
  readonly #pool: BlockPool;
  readonly #filler: BlockFiller;
  readonly #waiting: Buffer[] = [];
  #waitingBytes = 0;
  /** What comes after the last part: the end, or an error. */
  #over: { readonly error: Error | undefined } | undefined;
  #stopped = false;
  #announcing: NodeJS.Immediate | undefined;
  #gathering: NodeJS.Timeout | undefined;
  /** Since the last request. */
  #answered = 0;

  constructor(pool: BlockPool) {
    super({ allowHalfOpen: false });
    this.#pool = pool;
    this.#filler = pool.filler();
  }

  /** The connection that reads by `onread`; before any byte has arrived. */
  attach(below: Socket): this {
    this.#below = below;
    // Flowing, or it would not tell its end.
    below
      .on("end", () => this.#end(undefined))
      .on("close", () => this.#end(undefined))
      .on("error", (error) => this.#end(error))
      .resume();
    return this;
  }

  /** undici looks at it to know which HTTP is spoken. */
  get alpnProtocol(): string | false | null | undefined {
    const below = this.#below;
    return below !== undefined && "alpnProtocol" in below && typeof below.alpnProtocol === "string"
      ? below.alpnProtocol
      : undefined;
  }

  /** undici's types ask for a `net.Socket`; what it uses is a Duplex that has `ref`, `unref` and `alpnProtocol`. */
  asSocket(): Socket {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- tested with undici: test/peer, test/upstream
    return this as unknown as Socket;
  }

  ref(): this {
    this.#below?.ref();
    return this;
  }

  unref(): this {
    this.#below?.unref();
    return this;
  }

  /** The next part. The Readable's own buffer stays empty: it would join what is in it by a copy. */
  override read(size?: number): Buffer | null {
    const part = size === 0 ? undefined : this.#next();
    if (part === undefined) {
      // Nothing is ever in there, but this is how it tells its end.
      super.read(size);
      return null;
    }
    this.#waitingBytes -= part.byteLength;
    if (this.#waiting.length === 0 && this.#over !== undefined) this.#announce();
    if (this.#stopped && this.#waitingBytes < this.#pool.readAhead / 2) {
      this.#stopped = false;
      this.#below?.read(0);
    }
    return part;
  }

  #next(): Buffer | undefined {
    const first = this.#waiting[0];
    const { partBytes } = this.#pool;
    if (first === undefined || first.byteLength <= partBytes) return this.#waiting.shift();
    this.#waiting[0] = first.subarray(partBytes);
    return first.subarray(0, partBytes);
  }

  override unshift(part: Buffer): boolean {
    if (part.byteLength > 0) {
      this.#waiting.unshift(part);
      this.#waitingBytes += part.byteLength;
    }
    return false;
  }

  override _read(): void {
    // What comes is announced by `readable`.
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#answered = 0;
    this.#below?.write(chunk, callback);
  }

  override _final(callback: () => void): void {
    this.#below?.end(() => callback());
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    clearImmediate(this.#announcing);
    clearTimeout(this.#gathering);
    this.#waiting.length = 0;
    if (this.#below?.closed === false) this.#below.once("close", () => callback(error)).destroy();
    else callback(error);
  }

  /** False when the socket shall pause; what TLS has decrypted already still comes. */
  #arrived(bytes: Uint8Array): boolean {
    this.#filler.copy(bytes, (part) => {
      const last = this.#waiting.at(-1);
      const both = last === undefined ? undefined : joinPart(last, part);
      if (both === undefined) this.#waiting.push(part);
      else this.#waiting[this.#waiting.length - 1] = both;
      this.#waitingBytes += part.byteLength;
    });
    this.#answered += bytes.byteLength;
    if (this.#isWorthMore) this.#gathering ??= setTimeout(() => this.#announce(), GATHER_MS);
    else this.#announce();
    this.#stopped = this.#waitingBytes >= this.#pool.readAhead;
    return !this.#stopped;
  }

  #end(error: Error | undefined): void {
    this.#over ??= { error };
    this.#announce();
  }

  get #isWorthMore(): boolean {
    const enough = Math.min(GATHER_BYTES, this.#pool.readAhead / 2);
    return this.#answered > BODY_AFTER_BYTES && this.#waitingBytes < enough;
  }

  /**
   * Not at once: the records that came with this one follow within the same turn. And the end in a turn of its own: who
   * got the head of an answer with the last part must have had the time to look at its body.
   */
  #announce(): void {
    clearTimeout(this.#gathering);
    this.#gathering = undefined;
    this.#announcing ??= setImmediate(() => {
      this.#announcing = undefined;
      if (this.#waiting.length > 0) {
        this.emit("readable");
        if (this.#waiting.length === 0 && this.#over !== undefined) this.#announce();
      } else if (this.#over?.error !== undefined) this.destroy(this.#over.error);
      else if (this.#over !== undefined) this.push(null);
    });
  }
}
