import { addAbortSignal, type Readable } from "node:stream";
import {
  algorithmOf,
  Hasher,
  IntegrityError,
  linkSignal,
  raceSignal,
  SourceError,
  type ByteRange,
  type Digest,
  type LinkedSignal,
} from "@p2p-mirror/shared";
import { GrpcStatus, grpcStatusOf, type ContentClient } from "@p2p-mirror/shared/grpc";
import type { StoredBlob, StoreOptions } from "../content-store.ts";
import { verifiedDigests } from "../verified-digests.ts";
import { BlobStream } from "./blob-stream.ts";

export interface GrpcReaderOptions {
  /** Milliseconds the next message may take. */
  readonly stallMs: number;
  /** Called when a blob was found wrong, before its reader learns of it. Must not throw. */
  readonly onCorrupt: (digest: Digest) => void;
}

interface Verification {
  readonly promise: Promise<boolean>;
  readonly link: LinkedSignal;
  waiting: number;
}

type Chunks = AsyncGenerator<Buffer, void, undefined>;

const SOURCE = "containerd";

/** Reads blobs over gRPC with the same promise as files: nothing leaves of which it is not known that it is right. */
export class GrpcReader {
  readonly #options: GrpcReaderOptions;
  readonly #verified = verifiedDigests<true>();
  readonly #running = new Map<Digest, Verification>();

  constructor(options: GrpcReaderOptions) {
    this.#options = options;
  }

  /**
   * Bytes of a range of the blob, or undefined when containerd does not have it any more. Rejects with SourceError when
   * containerd does not deliver. @throws IntegrityError when a part was asked of a wrong blob.
   */
  async read(
    client: ContentClient,
    blob: StoredBlob,
    range: ByteRange,
    options: StoreOptions = {},
  ): Promise<Readable | undefined> {
    const whole = range.start === 0 && range.end === blob.size;
    if (!whole && !this.#verified.has(blob.digest)) {
      if (!(await this.#verifyShared(client, blob, options.signal))) return undefined;
    }
    const link = linkSignal([options.signal]);
    const raw = this.#counted(client, blob, range, link.signal);
    const chunks = this.#verified.has(blob.digest) ? raw : this.#checked(raw, blob);
    try {
      // Held back until the first chunk is there: only then it is known that containerd has the blob.
      const first = await chunks.next();
      const stream = new BlobStream(prepend(first, chunks), link);
      return options.signal === undefined ? stream : addAbortSignal(options.signal, stream);
    } catch (error) {
      if (whole && error instanceof IntegrityError) return new BlobStream(failing(error), link);
      link.release();
      if (isGone(error)) return undefined;
      throw error;
    }
  }

  forget(digest: Digest): void {
    this.#verified.delete(digest);
  }

  /** One hash run for all parts asked of a blob at the same time; false when the blob is gone. */
  async #verifyShared(
    client: ContentClient,
    blob: StoredBlob,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    let running = this.#running.get(blob.digest);
    if (running === undefined) {
      const link = linkSignal([]);
      running = { promise: this.#verify(client, blob, link.signal), link, waiting: 0 };
      running.promise.catch(() => undefined);
      this.#running.set(blob.digest, running);
    }
    running.waiting += 1;
    try {
      return await raceSignal(running.promise, signal);
    } finally {
      running.waiting -= 1;
      if (running.waiting === 0) {
        if (this.#running.get(blob.digest) === running) this.#running.delete(blob.digest);
        running.link.abort();
        running.link.release();
      }
    }
  }

  async #verify(client: ContentClient, blob: StoredBlob, signal: AbortSignal): Promise<boolean> {
    const all = { start: 0, end: blob.size };
    try {
      for await (const _ of this.#checked(this.#counted(client, blob, all, signal), blob));
      return true;
    } catch (error) {
      if (isGone(error)) return false;
      throw error;
    }
  }

  /** Exactly as many bytes as were asked for, or an error. */
  async *#counted(client: ContentClient, blob: StoredBlob, range: ByteRange, signal: AbortSignal): Chunks {
    const wanted = range.end - range.start;
    let got = 0;
    if (wanted === 0) return;
    try {
      for await (const chunk of client.read(blob.digest, range, { signal, stallMs: this.#options.stallMs })) {
        got += chunk.byteLength;
        if (got > wanted) break;
        yield chunk;
      }
    } catch (error) {
      if (got > 0 && error instanceof SourceError && error.code === "UNREACHABLE") {
        throw new SourceError("CUT", SOURCE, { cause: error });
      }
      throw error;
    }
    if (got === wanted) return;
    this.#condemn(blob);
    throw new IntegrityError("SIZE_MISMATCH", `${wanted} bytes`, `${got} bytes`, SOURCE);
  }

  /** Hashes a whole blob as it passes; the last chunk leaves only when the digest is right. */
  async *#checked(chunks: Chunks, blob: StoredBlob): Chunks {
    const hasher = new Hasher(algorithmOf(blob.digest));
    let held: Buffer | undefined;
    for await (const chunk of chunks) {
      hasher.update(chunk);
      if (held !== undefined) yield held;
      held = chunk;
    }
    const found = hasher.digest();
    if (found !== blob.digest) {
      this.#condemn(blob);
      throw new IntegrityError("DIGEST_MISMATCH", blob.digest, found, SOURCE);
    }
    this.#verified.set(blob.digest, true);
    if (held !== undefined) yield held;
  }

  #condemn(blob: StoredBlob): void {
    this.forget(blob.digest);
    this.#options.onCorrupt(blob.digest);
  }
}

const isGone = (error: unknown): boolean => grpcStatusOf(error) === GrpcStatus.notFound;

/** A wrong whole blob is the stream's end, as it is for a file; that all of it fitted into one chunk makes no difference. */
// oxlint-disable-next-line require-yield
async function* failing(error: IntegrityError): Chunks {
  throw error;
}

async function* prepend(first: IteratorResult<Buffer, void>, rest: Chunks): Chunks {
  if (first.done === true) return;
  yield first.value;
  yield* rest;
}
