import type { ServerResponse } from "node:http";
import { Writable } from "node:stream";
import { IntegrityError, SourceError } from "@p2p-mirror/shared";

/** Enough for a source to stay ahead of the socket; more would only be memory per reader. */
const SINK_BUFFER = 256 * 1024;

export interface BodySinkOptions {
  readonly response: ServerResponse;
  /** Exactly so many bytes are the body, as Content-Length says. */
  readonly length: number;
  /** Milliseconds for which the source may give nothing while the client could take more. */
  readonly stallMs: number;
  /**
   * Milliseconds until the headers go without a byte behind them: containerd 2.4 gives up a host that sends none for 30 s (its
   * core/remotes/docker/registry.go), though the blob is on its way.
   */
  readonly headersMs: number;
  /** Writes the headers. With the first byte, if it is in time: a source that fails before can still be declined. */
  readonly onHeaders: () => void;
  readonly onFirstByte: () => void;
  /** Takes a chunk back that the operating system has; nobody looks at it any more. */
  readonly recycle?: ((chunk: Uint8Array) => void) | undefined;
  /** Every byte was handed to the socket; that the client then closes is its right. */
  readonly onComplete: () => void;
}

/**
 * The end of a pipeline into an HTTP answer. Unlike the answer itself, it does not destroy the connection when the
 * pipeline fails: how to end it (404, FIN) is decided by whoever runs the pipeline. It never lets a body be longer than
 * announced, which would break the framing of the next answer, and fails when it is shorter.
 */
export class BodySink extends Writable {
  readonly #response: ServerResponse;
  readonly #length: number;
  readonly #onHeaders: () => void;
  readonly #onFirstByte: () => void;
  readonly #onComplete: () => void;
  readonly #recycle: ((chunk: Uint8Array) => void) | undefined;
  readonly #onDrain = (): void => this.#ready();
  readonly #watchdog: NodeJS.Timeout;
  readonly #headersDue: NodeJS.Timeout;
  #pending: ((error?: Error | null) => void) | undefined;
  /** Body bytes handed to the socket. */
  sent = 0;

  constructor(options: BodySinkOptions) {
    super({ highWaterMark: SINK_BUFFER, decodeStrings: false });
    this.#response = options.response;
    this.#length = options.length;
    this.#onHeaders = options.onHeaders;
    this.#onFirstByte = options.onFirstByte;
    this.#onComplete = options.onComplete;
    this.#recycle = options.recycle;
    this.#response.on("drain", this.#onDrain);
    this.#watchdog = setTimeout(() => this.#onSilence(), options.stallMs);
    this.#headersDue = setTimeout(() => this.#sendHeaders(), options.headersMs);
  }

  get complete(): boolean {
    return this.sent === this.#length;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    if (this.sent + chunk.byteLength > this.#length) {
      callback(this.#wrongSize(`more than ${this.#length} bytes`));
      return;
    }
    if (this.sent === 0) this.#begin();
    this.sent += chunk.byteLength;
    if (this.complete) {
      // Here and not in `_final`: whatever the source does after its last byte, the client has what it was promised.
      clearTimeout(this.#watchdog);
      this.#onComplete();
      this.#response.end(chunk);
      callback();
      return;
    }
    this.#watchdog.refresh();
    if (this.#send(chunk)) callback();
    else this.#pending = callback;
  }

  override _final(callback: (error?: Error | null) => void): void {
    callback(this.complete ? null : this.#wrongSize(`${this.sent} bytes`));
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    clearTimeout(this.#watchdog);
    clearTimeout(this.#headersDue);
    this.#response.removeListener("drain", this.#onDrain);
    this.#pending = undefined;
    callback(error);
  }

  #begin(): void {
    clearTimeout(this.#headersDue);
    if (!this.#response.headersSent) this.#onHeaders();
    this.#onFirstByte();
  }

  #sendHeaders(): void {
    this.#onHeaders();
    this.#response.flushHeaders();
  }

  /** False when the client has to take something first. */
  #send(chunk: Buffer): boolean {
    const recycle = this.#recycle;
    if (recycle === undefined) return this.#response.write(chunk);
    return this.#response.write(chunk, (error) => {
      // After an error it is not certain who still holds the chunk: it becomes garbage.
      if (error === null || error === undefined) recycle(chunk);
    });
  }

  #ready(): void {
    const callback = this.#pending;
    this.#pending = undefined;
    this.#watchdog.refresh();
    callback?.();
  }

  /** A client that takes nothing is slow, and may be; a source that gives nothing while the client waits is lost. */
  #onSilence(): void {
    if (this.#pending !== undefined) this.#watchdog.refresh();
    else this.destroy(new SourceError("STALLED", "body"));
  }

  #wrongSize(found: string): IntegrityError {
    return new IntegrityError("SIZE_MISMATCH", `${this.#length} bytes`, found, "body");
  }
}
