import type { Readable } from "node:stream";
import { consume, SourceError, type ByteRange, type Clock, type Logger } from "@p2p-mirror/shared";
import { TAIL_BYTES, type Cursor } from "./flight-reader.ts";
import type { FlightPieces } from "./flight-pieces.ts";
import type { BlobSource } from "./source.ts";

/**
 * What came by a peer's word alone waits for the digest of the whole blob, so that a peer with wrong bytes costs no pull.
 * After five minutes without a byte containerd gives a pull up (facts/containerd.md): a reader that has waited for
 * `DRIP_MS` gets `DRIP_BYTES` that somebody else has vouched for, and nobody waits for longer than `GIVE_OUT_MS`.
 */
export const DRIP_MS = 90_000;
export const DRIP_BYTES = 16 * 1024;
/** With nobody who could vouch for anything: what is there goes out as it comes. */
export const GIVE_OUT_MS = 240_000;
const LOOK_MS = 30_000;
/** Holders that are compared with each other when upstream cannot be asked. */
const MAX_HOLDERS = 4;
/** To the first byte, and between two. */
const PATIENCE_MS = 5_000;

export interface HoldBackDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly pieces: Pick<FlightPieces, "geometry" | "heldBack" | "giveOut" | "vouch" | "releasable">;
  /** The places of those who read. */
  readonly cursors: ReadonlySet<Cursor>;
  /** Whoever may be asked for the blob, at work or not. */
  readonly sources: () => readonly BlobSource[];
  /** Bytes that came, by kind of source. */
  readonly received: (kind: BlobSource["kind"], bytes: number) => void;
}

/** Keeps readers alive whose bytes are here but not known to be right. From its making until `close`. */
export class HoldBack {
  readonly #deps: HoldBackDeps;
  readonly #waiting = new WeakMap<Cursor, { readonly position: number; readonly since: number }>();
  readonly #closed = new AbortController();
  #cancel: () => void;

  constructor(deps: HoldBackDeps) {
    this.#deps = deps;
    this.#cancel = this.#later();
  }

  close(): void {
    this.#cancel();
    this.#closed.abort();
  }

  #later(): () => void {
    return this.#deps.clock.after(LOOK_MS, () => {
      void this.#look().finally(() => {
        if (!this.#closed.signal.aborted) this.#cancel = this.#later();
      });
    });
  }

  async #look(): Promise<void> {
    const { clock, pieces, cursors, logger } = this.#deps;
    if (!pieces.heldBack) return;
    for (const cursor of cursors) {
      const { position } = cursor;
      const before = this.#waiting.get(cursor);
      const since = before?.position === position ? before.since : clock.now();
      this.#waiting.set(cursor, { position, since });
      const end = Math.min(position + DRIP_BYTES, cursor.end - TAIL_BYTES);
      if (clock.now() - since < DRIP_MS || position >= end || pieces.releasable(position, false) > position)
        continue;
      const bytes = await this.#vouched({ start: position, end });
      if (this.#closed.signal.aborted) return;
      if (bytes !== undefined) pieces.vouch(position, bytes);
      else if (clock.now() - since >= GIVE_OUT_MS) {
        logger.info("nobody vouches for the bytes of peers: they are given out before the digest is known");
        return pieces.giveOut();
      }
    }
  }

  /** Bytes of `range` by upstream, or as two holders say both; undefined: neither can be had. */
  async #vouched(range: ByteRange): Promise<Buffer | undefined> {
    const sources = this.#deps.sources();
    for (const source of sources)
      if (source.kind === "upstream") {
        const bytes = await this.#read(source, range);
        if (bytes !== undefined) return bytes;
      }
    const said: Buffer[] = [];
    for (const source of sources.filter(({ kind }) => kind === "peer").slice(0, MAX_HOLDERS)) {
      const bytes = await this.#read(source, range);
      if (bytes === undefined) continue;
      if (said.some((other) => other.equals(bytes))) return bytes;
      said.push(bytes);
    }
    return undefined;
  }

  async #read(source: BlobSource, range: ByteRange): Promise<Buffer | undefined> {
    const { signal } = this.#closed;
    if (signal.aborted || !source.available) return undefined;
    try {
      const { size } = this.#deps.pieces.geometry;
      const said = await source.fetch(range, {
        size,
        signal,
        stallMs: PATIENCE_MS,
        firstByteMs: PATIENCE_MS,
      });
      try {
        // A source without ranges would send all that comes before.
        if (said.start !== range.start || (said.size ?? size) !== size) return undefined;
        return await this.#collect(said.body, range.end - range.start, source);
      } finally {
        said.body.on("error", () => undefined).destroy();
      }
    } catch {
      // Whatever it is: this one vouches for nothing. Sources at work say in the log what they cannot do.
      return undefined;
    }
  }

  async #collect(body: Readable, length: number, source: BlobSource): Promise<Buffer> {
    const chunks: Buffer[] = [];
    let received = 0;
    await consume(body, (chunk) => {
      // A copy: a source may take its chunks back.
      chunks.push(Buffer.from(chunk.subarray(0, length - received)));
      received += chunk.length;
      return received < length;
    });
    this.#deps.received(source.kind, Math.min(received, length));
    if (received < length) throw new SourceError("CUT", source.id);
    return Buffer.concat(chunks);
  }
}
