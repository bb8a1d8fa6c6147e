import {
  SourceError,
  type LimitedReadable,
  type RateLimit,
  type RateShare,
  type RecyclingReadable,
} from "@p2p-mirror/shared";
import { Readable } from "node:stream";
import { bodyError } from "./transport-errors.ts";

/**
 * Reads a body into memory.
 * @throws SourceError (`CUT`, `STALLED`, or `STATUS` when it is longer than `max` bytes), or the signal's reason
 */
export async function readBounded(
  body: Readable,
  max: number,
  source: string,
  signal?: AbortSignal,
): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of body) {
      if (!Buffer.isBuffer(chunk)) throw new TypeError("a body gave no bytes");
      size += chunk.length;
      if (size > max) break;
      chunks.push(chunk);
    }
  } catch (error) {
    signal?.throwIfAborted();
    throw bodyError(source, error);
  }
  if (size > max) throw new SourceError("STATUS", source, { message: `an answer of more than ${max} bytes` });
  return Buffer.concat(chunks, size);
}

export interface BlobBodyOptions {
  readonly source: string;
  /** Bytes after which the body is complete; undefined: whenever upstream ends it. */
  readonly length: number | undefined;
  /** What comes after `length` is not wanted, rather than wrong: upstream ignored the range. */
  readonly truncate: boolean;
  /** The caller's: an error after it aborted is its own, not upstream's. */
  readonly signal: AbortSignal | undefined;
  /** Of all bytes from registries together. */
  readonly limit?: RateLimit | undefined;
  readonly onBytes: (count: number) => void;
  readonly onFailure: (error: SourceError) => void;
}

/**
 * A blob's bytes as upstream sends them, held to the length that was announced, with upstream's errors turned into ours.
 * Destroying it ends the request.
 */
export class BlobBody extends Readable implements RecyclingReadable, LimitedReadable {
  readonly #body: RecyclingReadable;
  readonly #options: BlobBodyOptions;
  readonly #share: RateShare | undefined;
  #received = 0;
  /** The reader has room. */
  #wanted = false;

  constructor(body: RecyclingReadable, options: BlobBodyOptions) {
    super({ highWaterMark: 256 * 1024 });
    this.#body = body;
    this.#options = options;
    this.#share = options.limit?.share(() => this.#goOn());
    body.on("data", (chunk: Buffer) => this.#take(chunk));
    body.once("end", () => this.#end());
    body.on("error", (error) => {
      if (this.#isComplete) return;
      if (options.signal?.aborted === true) this.destroy(error);
      else this.#fail(bodyError(options.source, error));
    });
    body.pause();
    if (this.#isComplete) this.#end();
  }

  get #isComplete(): boolean {
    return this.#received === this.#options.length;
  }

  recycle(chunk: Uint8Array): void {
    this.#body.recycle(chunk);
  }

  get heldMs(): number {
    return this.#share?.heldMs ?? 0;
  }

  override _read(): void {
    this.#wanted = true;
    this.#goOn();
  }

  #goOn(): void {
    if (this.#wanted && this.#share?.held !== true) this.#body.resume();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#share?.close();
    this.#body.destroy();
    done(error);
  }

  #take(chunk: Buffer): void {
    if (this.readableEnded || this.destroyed || this.#isComplete) return;
    const { length, truncate, source, onBytes } = this.#options;
    const room = length === undefined ? chunk.length : length - this.#received;
    onBytes(chunk.length);
    if (chunk.length > room && !truncate) {
      this.#fail(new SourceError("STATUS", source, { message: "more bytes than announced" }));
      return;
    }
    const taken = chunk.length > room ? chunk.subarray(0, room) : chunk;
    this.#received += taken.length;
    const due = this.#share?.spend(chunk.length) !== false || this.#isComplete;
    this.#wanted = this.push(taken);
    if (!this.#wanted || !due) this.#body.pause();
    if (truncate && this.#isComplete) {
      this.push(null);
      this.#body.destroy();
    }
  }

  #end(): void {
    const { length, source } = this.#options;
    if (length === undefined || this.#isComplete) this.push(null);
    else this.#fail(new SourceError("CUT", source, { message: `${this.#received} of ${length} bytes` }));
  }

  #fail(error: SourceError): void {
    if (this.destroyed) return;
    this.#options.onFailure(error);
    this.destroy(error);
  }
}
