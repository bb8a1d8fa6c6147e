import { Readable } from "node:stream";
import { NotFoundError, SourceError, type ByteRange, type Digest } from "@p2p-mirror/shared";
import type { Peer } from "../../src/routing/router.ts";
import type { BlobSource, FetchedBody, FetchOptions, SourceFinder } from "../../src/transfer/source.ts";

export interface Script {
  readonly kind?: BlobSource["kind"];
  readonly bytes: Buffer;
  /** Fails before any byte. */
  readonly refuse?: (request: number) => Error | undefined;
  /** Ends the n-th body (from 0) after so many bytes, with CUT. */
  readonly cutAfter?: (request: number) => number | undefined;
  /** Never gives a byte after so many; ends with STALLED when the flight gives it up. */
  readonly stallAfter?: number;
  /** Called before each chunk. */
  readonly pace?: (offset: number) => Promise<void>;
  readonly ignoreRange?: boolean;
  /** Of each chunk; default 16 KiB, as TLS gives them. */
  readonly chunkBytes?: number;
  readonly size?: number;
  /** Known not to answer now. */
  readonly unavailable?: boolean;
}

/** A source that does what it is told, and remembers what it was asked for. */
export class ScriptedSource implements BlobSource {
  readonly kind: BlobSource["kind"];
  readonly available: boolean;
  readonly id: string;
  readonly requests: ByteRange[] = [];
  script: Script;
  delivered = 0;
  refutations = 0;

  constructor(id: string, script: Script) {
    this.id = id;
    this.kind = script.kind ?? "peer";
    this.script = script;
    this.available = script.unavailable !== true;
  }

  async fetch(range: ByteRange, options: FetchOptions): Promise<FetchedBody> {
    const request = this.requests.push(range) - 1;
    const refusal = this.script.refuse?.(request);
    if (refusal !== undefined) throw refusal;
    const start = this.script.ignoreRange === true ? 0 : range.start;
    return {
      start,
      size: this.script.size ?? this.script.bytes.length,
      body: Readable.from(this.#chunks(start, range.end, request, options), { objectMode: false }),
    };
  }

  refuted(): void {
    this.refutations += 1;
  }

  async *#chunks(start: number, end: number, request: number, options: FetchOptions): AsyncGenerator<Buffer> {
    const cut = this.script.cutAfter?.(request) ?? Infinity;
    const step = this.script.chunkBytes ?? 16_384;
    for (let at = start; at < end; at += step) {
      if (at - start >= cut) throw new SourceError("CUT", this.id);
      if (at - start >= (this.script.stallAfter ?? Infinity)) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, options.stallMs);
          options.signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
        });
        throw new SourceError("STALLED", this.id);
      }
      await this.script.pace?.(at);
      const chunk = this.script.bytes.subarray(at, Math.min(end, at + step));
      this.delivered += chunk.length;
      yield Buffer.from(chunk);
    }
  }
}

/** Finds the peers it was given, and one upstream. */
export class ScriptedFinder implements SourceFinder {
  peersFound: BlobSource[] = [];
  upstreamSource: BlobSource;
  lookups = 0;
  /** The lookup ends when this resolves. */
  lookupEnds: Promise<void> = Promise.resolve();

  constructor(upstream: BlobSource | undefined, peers: BlobSource[] = []) {
    this.upstreamSource = upstream ?? {
      kind: "upstream",
      available: true,
      id: "registry/repo",
      fetch: () => Promise.reject(new NotFoundError("BLOB_UNKNOWN", "it")),
      refuted: () => undefined,
    };
    this.peersFound = peers;
  }

  /** May be replaced by a lookup that finds them one after the other. */
  peers: (digest: Digest) => AsyncIterable<BlobSource> = () => this.#lookUp();

  async *#lookUp(): AsyncIterable<BlobSource> {
    this.lookups += 1;
    yield* this.peersFound;
    await this.lookupEnds;
  }

  /** Peers that busy ones name, by ID. */
  readonly named = new Map<string, BlobSource>();

  peer({ id }: Peer): BlobSource {
    const source = this.named.get(id);
    if (source === undefined) throw new TypeError(`nobody is called ${id}`);
    return source;
  }

  upstream(): BlobSource {
    return this.upstreamSource;
  }
}

/** Bytes that anybody can make again from the seed (xorshift32). */
export function seededBytes(size: number, seed: number): Buffer {
  const words = new Uint32Array(Math.ceil(size / 4));
  let state = seed | 1;
  for (let i = 0; i < words.length; i += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state >>> 0;
  }
  return Buffer.from(words.buffer, 0, size);
}
