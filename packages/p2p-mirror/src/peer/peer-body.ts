import { Readable } from "node:stream";
import {
  SourceError,
  type BlockPool,
  type LimitedReadable,
  type RateLimit,
  type RateShare,
  type RecyclingReadable,
} from "@p2p-mirror/shared";
import { TooSlowError } from "../transfer/peer-client.ts";
import { ProgressWatch } from "./progress.ts";

/**
 * How a body ended on the wire; `left` is our own side (the caller destroyed it or aborted), `stalled` also when the caller
 * gave it up because of that.
 */
export type BodyEnd = "complete" | "stalled" | "cut" | "left";

export interface PeerBodyOptions {
  /** Of the body, in bytes, as the head of the answer announced it. */
  readonly length: number;
  /** Fewer than `minBytes` in this time, while the caller reads, end the body with `STALLED`. */
  readonly stallMs: number;
  readonly minBytes: number;
  /** How much is buffered ahead of the caller before the connection is paused, in bytes. */
  readonly highWaterMark: number;
}

/** The connection below: undici's controller of one request. */
export interface PeerBodySource {
  pause(): void;
  resume(): void;
  abort(reason: Error): void;
}

/** Received bytes are reported in portions, not chunk by chunk: at 1 GB/s there are 60,000 chunks a second. */
const REPORT_BYTES = 1024 * 1024;

/**
 * The body of a peer's answer: exactly `length` bytes or an error. While the caller does not read, or the limit of what
 * this node takes from peers holds it up, the connection is paused and the watch with it: that is not the peer's stall.
 */
export class PeerBody extends Readable implements RecyclingReadable, LimitedReadable {
  readonly #length: number;
  readonly #peer: string;
  readonly #source: PeerBodySource;
  readonly #pool: BlockPool;
  readonly #watch: ProgressWatch;
  readonly #share: RateShare | undefined;
  readonly #onBytes: (bytes: number) => void;
  readonly #onEnd: (end: BodyEnd) => void;
  #received = 0;
  #reported = 0;
  #paused = false;
  #ended = false;

  constructor(
    options: PeerBodyOptions,
    deps: {
      peer: string;
      source: PeerBodySource;
      /** Where the chunks come from and go back to. */
      pool: BlockPool;
      limit?: RateLimit | undefined;
      onBytes: (bytes: number) => void;
      onEnd: (end: BodyEnd) => void;
    },
  ) {
    super({ highWaterMark: options.highWaterMark });
    this.#length = options.length;
    this.#peer = deps.peer;
    this.#source = deps.source;
    this.#pool = deps.pool;
    this.#onBytes = deps.onBytes;
    this.#onEnd = deps.onEnd;
    this.#watch = new ProgressWatch(options.stallMs, options.minBytes, () => this.#stalled());
    this.#watch.start();
    this.#share = deps.limit?.share(() => this.#goOn());
    // The connection may break before the caller has got hold of the body. Who reads later still gets the error.
    this.on("error", () => undefined);
  }

  /** From the connection: the next bytes. */
  receive(chunk: Buffer): void {
    this.#received += chunk.byteLength;
    this.#watch.advance(chunk.byteLength);
    if (this.#received - this.#reported >= REPORT_BYTES) this.#report();
    const due = this.#share?.spend(chunk.byteLength) !== false;
    const room = this.push(chunk) && !this.#isFull;
    if ((room && due) || this.#received === this.#length) return;
    this.#paused = true;
    this.#watch.stop();
    this.#source.pause();
  }

  /** From the connection: the answer is over. */
  finish(): void {
    if (this.#received !== this.#length) return this.fail(new Error("the answer ended early"));
    this.#end("complete");
    this.push(null);
  }

  /** From the connection: it broke. */
  fail(cause: Error): void {
    if (this.#ended) return;
    this.#end("cut");
    const message = `the body ended after ${this.#received} of ${this.#length} bytes`;
    this.destroy(new SourceError("CUT", this.#peer, { message, cause }));
  }

  recycle(chunk: Uint8Array): void {
    this.#pool.recycle(chunk);
  }

  get heldMs(): number {
    return this.#share?.heldMs ?? 0;
  }

  /** Also when there is room in the Readable: all bodies together may have less. */
  get #isFull(): boolean {
    return this.readableLength >= this.#pool.readAhead;
  }

  override read(size?: number): Buffer | null {
    const chunk: Buffer | null = super.read(size);
    this.#goOn();
    return chunk;
  }

  override _read(): void {
    this.#goOn();
  }

  #goOn(): void {
    if (!this.#paused || this.#ended || this.#isFull || this.#share?.held === true) return;
    this.#paused = false;
    this.#watch.start();
    this.#source.resume();
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    if (!this.#ended) {
      this.#end(error instanceof TooSlowError ? "stalled" : "left");
      this.#source.abort(error ?? new Error("the body was not wanted any more"));
    }
    callback(error);
  }

  /** The whole body as text; a longer one than `maxBytes` is destroyed and undefined. */
  async text(maxBytes: number): Promise<string | undefined> {
    if (this.#length > maxBytes) {
      this.destroy();
      return undefined;
    }
    const chunks: Buffer[] = [];
    for await (const chunk of this) if (chunk instanceof Uint8Array) chunks.push(Buffer.from(chunk));
    return Buffer.concat(chunks).toString("utf8");
  }

  /** Reads the body to its end so that the connection can be used again, or gives the connection up for a long one. */
  discard(maxBytes: number): void {
    if (this.#length > maxBytes) this.destroy();
    else this.resume();
  }

  #stalled(): void {
    if (this.#ended) return;
    this.#end("stalled");
    const message = `stalled after ${this.#received} of ${this.#length} bytes`;
    const error = new SourceError("STALLED", this.#peer, { message });
    this.#source.abort(error);
    this.destroy(error);
  }

  #end(end: BodyEnd): void {
    this.#ended = true;
    this.#share?.close();
    this.#watch.stop();
    this.#report();
    this.#onEnd(end);
  }

  #report(): void {
    if (this.#received > this.#reported) this.#onBytes(this.#received - this.#reported);
    this.#reported = this.#received;
  }
}
