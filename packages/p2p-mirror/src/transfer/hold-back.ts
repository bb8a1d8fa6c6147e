import { addAbortSignal, type Readable } from "node:stream";
import { consume, SourceError, type ByteRange, type Clock, type Logger } from "@p2p-mirror/shared";
import type { FlightPieces } from "./flight-pieces.ts";
import { TAIL_BYTES, type Cursor, type Vouched } from "./flight-reader.ts";
import type { BlobSource } from "./source.ts";

/**
 * What came by a peer's word alone waits for the digest of the whole blob, so that a peer with wrong bytes costs no pull.
 * After five minutes without a byte containerd gives a pull up, some releases of 1.7 after one (facts/containerd.md;
 * `image_pull_progress_timeout`): a reader that has waited for `DRIP_MS` gets `DRIP_BYTES` that somebody else has vouched for.
 */
export const DRIP_MS = 30_000;
export const DRIP_BYTES = 16 * 1024;
/**
 * With nobody who could vouch for anything, what is there goes out as it comes: before the endpoint takes the flight for
 * stuck (`http/body-sink.ts`, four minutes).
 */
export const GIVE_OUT_MS = 150_000;
const LOOK_MS = 5_000;
/** For all that one of them is asked for; so many are asked in one look. */
const PATIENCE_MS = 4_000;
const MAX_ASKED = 4;

export interface HoldBackDeps {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly pieces: Pick<FlightPieces, "geometry" | "giveOut" | "isHeldBack">;
  /** The places of those who read. */
  readonly cursors: ReadonlySet<Cursor>;
  /** Whoever may be asked for the blob, at work or not, upstream first. */
  readonly sources: () => readonly BlobSource[];
  /** Bytes that came, by kind of source. */
  readonly received: (kind: BlobSource["kind"], bytes: number) => void;
  /** A reader may have more. */
  readonly vouched: () => void;
}

/** Keeps readers alive whose bytes are here but not known to be right. From its making until `close`. */
export class HoldBack {
  readonly #deps: HoldBackDeps;
  /** Where a reader stands, and since when. */
  readonly #waiting = new WeakMap<Cursor, { readonly position: number; readonly since: number }>();
  /** Sources that cannot be asked for a part. */
  readonly #useless = new Set<string>();
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
    return this.#deps.clock.after(LOOK_MS, () => void this.#lookAndGoOn());
  }

  async #lookAndGoOn(): Promise<void> {
    try {
      await this.#look();
    } catch (error) {
      this.#deps.logger.warn({ err: error }, "nobody was asked for what is held back");
    }
    if (!this.#closed.signal.aborted) this.#cancel = this.#later();
  }

  async #look(): Promise<void> {
    const { clock, pieces, vouched } = this.#deps;
    const waiting = this.#whoWaits();
    const place = Math.min(...waiting.map(({ position }) => position));
    const [first] = waiting.filter(({ position }) => position === place);
    if (first === undefined) return;
    // One place in each look: the reader that is behind waits for longest.
    const end = Math.min(place + DRIP_BYTES, first.end - TAIL_BYTES);
    const given = await this.#vouchedFor({ start: place, end });
    if (this.#closed.signal.aborted) return;
    if (given !== undefined) {
      for (const cursor of waiting) if (cursor.position === place) cursor.vouched.push(given);
      return vouched();
    }
    const since = this.#waiting.get(first)?.since ?? clock.now();
    if (clock.now() - since < GIVE_OUT_MS) return;
    this.#deps.logger.info(
      "nobody vouches for bytes of peers: they are given out before the digest is known",
    );
    pieces.giveOut();
  }

  /** Readers whose next bytes are here and held back, for long enough. */
  #whoWaits(): Cursor[] {
    const { clock, pieces, cursors } = this.#deps;
    const now = clock.now();
    return [...cursors].filter((cursor) => {
      const { position, end } = cursor;
      const before = this.#waiting.get(cursor);
      const since = before?.position === position ? before.since : now;
      this.#waiting.set(cursor, { position, since });
      const isHeld = pieces.isHeldBack(position) && position < end - TAIL_BYTES;
      // One that does not take what it has got waits for nobody.
      return isHeld && now - since >= DRIP_MS - LOOK_MS && cursor.vouched.at(-1)?.start !== position;
    });
  }

  /** Bytes of `range` by upstream, or as two holders say both; undefined: neither can be had. */
  async #vouchedFor(range: ByteRange): Promise<Vouched | undefined> {
    const sources = this.#deps.sources().filter(({ id, available }) => available && !this.#useless.has(id));
    // A lone holder cannot vouch for itself.
    if (sources.length < 2 && sources[0]?.kind !== "upstream") return undefined;
    const said: Buffer[] = [];
    for (const source of sources.slice(0, MAX_ASKED)) {
      const bytes = await this.#ask(source, range);
      if (bytes === undefined) continue;
      const isSure = source.kind === "upstream";
      if (isSure || said.some((other) => other.equals(bytes))) return { start: range.start, bytes, isSure };
      said.push(bytes);
    }
    return undefined;
  }

  async #ask(source: BlobSource, range: ByteRange): Promise<Buffer | undefined> {
    const abort = new AbortController();
    const end = (): void => abort.abort();
    const cancel = this.#deps.clock.after(PATIENCE_MS, end);
    this.#closed.signal.addEventListener("abort", end);
    try {
      if (this.#closed.signal.aborted) return undefined;
      return await this.#read(source, range, abort.signal);
    } catch {
      // Whatever it is: this one vouches for nothing. Sources at work say in the log what they cannot do.
      return undefined;
    } finally {
      cancel();
      this.#closed.signal.removeEventListener("abort", end);
    }
  }

  async #read(source: BlobSource, range: ByteRange, signal: AbortSignal): Promise<Buffer | undefined> {
    const { size } = this.#deps.pieces.geometry;
    const options = { size, signal, stallMs: PATIENCE_MS, firstByteMs: PATIENCE_MS };
    const { body, ...said } = await source.fetch(range, options);
    addAbortSignal(
      signal,
      body.on("error", () => undefined),
    );
    try {
      // A source without ranges would send all that comes before.
      if (said.start !== range.start || (said.size ?? size) !== size) {
        this.#useless.add(source.id);
        return undefined;
      }
      return await collect(body, range.end - range.start, source, this.#deps.received);
    } finally {
      body.destroy();
    }
  }
}

async function collect(
  body: Readable,
  length: number,
  source: BlobSource,
  received: HoldBackDeps["received"],
): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  await consume(body, (chunk) => {
    // A copy: a source may take its chunks back.
    chunks.push(Buffer.from(chunk.subarray(0, length - bytes)));
    bytes += chunk.length;
    return bytes < length;
  });
  received(source.kind, Math.min(bytes, length));
  if (bytes < length) throw new SourceError("CUT", source.id);
  return Buffer.concat(chunks);
}
