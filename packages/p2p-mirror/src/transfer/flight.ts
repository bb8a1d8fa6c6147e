import { Readable } from "node:stream";
import {
  AllSourcesFailedError,
  NotFoundError,
  raceSignal,
  type ByteRange,
  type Clock,
  type Digest,
  type Logger,
  type Repository,
} from "@p2p-mirror/shared";
import type { PieceHere } from "./content.ts";
import type { FetchDeps } from "./fetch-deps.ts";
import { Fetches } from "./fetches.ts";
import { FlightMember, type FlightSwarm } from "./flight-member.ts";
import { readFlight, readSpool, type Cursor, type FlightView } from "./flight-reader.ts";
import { FlightPieces } from "./flight-pieces.ts";
import { bytesHere, swarmProgress, type FlightProgress } from "./flight-progress.ts";
import { HoldBack } from "./hold-back.ts";
import { Notifier } from "./notifier.ts";
import { PATIENCE_MS, SUSPECT_PATIENCE_MS } from "./patience.ts";
import type { RefutedBlob } from "./refuted-blobs.ts";
import type { BlobSource, SourceFinder } from "./source.ts";
import type { Spool } from "./spool.ts";
import { Verification } from "./verification.ts";

/** A flight nobody reads goes on for so long: the reader may come back (containerd resumes by Range). */
export const LINGER_MS = 30_000;
/** A flight that ended before anybody read it can still be opened for so long. */
const OPEN_MS = 5_000;
export interface FlightOptions {
  readonly digest: Digest;
  /** Bytes, from a manifest or from the first source that said it. */
  readonly size: number;
  /** Where the first reader begins, default 0. */
  readonly start?: number;
  /** What the pieces hash to that are in the spool from a try that ended in a wrong blob. */
  readonly left?: ReadonlyMap<number, Buffer>;
}

export interface FlightDeps {
  /** Undefined: what others fetch at the same time is not looked at. */
  readonly swarm?: FlightSwarm | undefined;
  readonly spool: Spool;
  readonly finder: SourceFinder;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Bytes as they arrive, by kind of source. */
  readonly received: (kind: BlobSource["kind"], bytes: number) => void;
  /** See {@link FetchDeps}. */
  readonly hedged?: FetchDeps["hedged"];
  /** Takes the spool of a wrong blob over for the next try. Default: it is released, as any other. */
  readonly refuted?: ((blob: RefutedBlob) => Promise<void>) | undefined;
}

/**
 * One task per digest: brings the pieces of a blob from several sources into a spool, verifies the whole, and feeds any
 * number of readers of any range meanwhile. A reader that leaves never ends it while others read.
 */
export class Flight implements FlightView {
  readonly digest: Digest;
  readonly size: number;
  readonly spool: Spool;
  verified = false;
  /** Nothing is fetched any more; it may still be read. */
  isOver = false;
  /** Kind of the first source that answered. */
  firstSource: BlobSource["kind"] | undefined;
  /** Resolves when the blob is verified and committed (or could not be stored); rejects when the flight failed. */
  readonly done: Promise<void>;
  /** Resolves when a source has answered with a body; rejects when the flight failed before. */
  readonly accepted: Promise<void>;
  /** Resolves when nobody reads it any more and its file is closed. */
  readonly closed: Promise<void>;

  readonly #deps: FlightDeps;
  readonly #pieces: FlightPieces;
  readonly #fetches: Fetches;
  readonly #member: FlightMember | undefined;
  readonly #verification: Verification;
  readonly #cursors = new Set<Cursor>();
  readonly #ended = new AbortController();
  readonly #accept = Promise.withResolvers<void>();
  readonly #closed = Promise.withResolvers<void>();
  /** Sources or their work have changed. */
  readonly #step = new Notifier();
  /** Readers may have more, or nothing any more. */
  readonly #readable = new Notifier();
  /** Pieces that others are reading. */
  readonly #given = new Set<Readable>();
  readonly #delivered = { upstream: 0, peer: 0 };
  #failure: Error | undefined;
  #released = false;
  #everRead = false;
  /** Readers to be, who wait for the first source. */
  #waiting = 0;
  #lastProgress: number;
  #bytesAtLook = 0;
  #cancelLinger: (() => void) | undefined;

  constructor(options: FlightOptions, deps: FlightDeps) {
    this.digest = options.digest;
    this.size = options.size;
    this.spool = deps.spool;
    this.#deps = deps;
    this.#lastProgress = deps.clock.now();
    this.#pieces = new FlightPieces(options, deps.spool, () => this.#wake());
    this.#member = deps.swarm && new FlightMember(options, this.#pieces, deps.swarm, this.#ended.signal);
    this.#fetches = new Fetches(
      { ...options, start: options.start ?? 0 },
      {
        ...deps,
        crowd: this.#member,
        pieces: this.#pieces,
        accepted: (kind) => {
          this.firstSource ??= kind;
          this.#accept.resolve();
        },
        arrived: (offset) => {
          for (const cursor of this.#cursors) if (cursor.position === offset) return this.#readable.notify();
        },
        written: (kind, bytes) => {
          deps.received(kind, bytes);
          this.#delivered[kind] += bytes;
          this.#lastProgress = deps.clock.now();
          this.#readable.notify();
          if (this.#pieces.complete) this.#step.notify();
        },
        waits: () => (this.#lastProgress = deps.clock.now()),
        changed: () => this.#wake(),
      },
    );
    this.#verification = new Verification({
      pieces: this.#pieces,
      candidates: this.#fetches.candidates,
      member: this.#member,
      signal: this.#ended.signal,
      logger: deps.logger,
    });
    this.closed = this.#closed.promise;
    this.accepted = this.#accept.promise;
    this.done = this.#run();
    for (const promise of [this.accepted, this.done]) promise.catch(() => undefined);
    this.#linger();
  }

  /** Another repository the blob may be fetched from at upstream. */
  addOrigin(repository: Repository): void {
    this.#fetches.addOrigin(repository);
  }

  /** A piece that others may have, verified by itself though the blob is not complete; undefined: not here (yet). */
  piece(piece: number): PieceHere | undefined {
    const member = this.#member;
    if (this.#failure !== undefined || this.#released || this.spool.windowed) return undefined;
    if (member?.gives(piece) !== true) return undefined;
    const range = this.#pieces.geometry.range(piece, piece);
    return {
      length: range.end - range.start,
      get hash() {
        return member.hashOf(piece);
      },
      sign: (sha256) => member.sign(piece, sha256),
      open: ({ signal }) => Promise.resolve(this.#openSpool(range, signal)),
    };
  }

  /** False when bytes of the range are gone already (nothing is stored, and the window has moved on). */
  canServe(range: ByteRange): boolean {
    return this.#failure === undefined && !this.#released && range.start >= this.spool.base;
  }

  /** Of this node; pieces that others read are not counted. */
  get readers(): number {
    return this.#cursors.size - this.#given.size;
  }

  /** For the status page: bytes that are here, and who delivers. */
  get progress(): FlightProgress {
    const member = this.isOver ? undefined : this.#member?.member;
    return {
      received: this.isOver && this.#failure === undefined ? this.size : bytesHere(this.#pieces),
      fromUpstream: this.#delivered.upstream,
      fromPeers: this.#delivered.peer,
      sources: this.#fetches.sources,
      swarm: member === undefined ? undefined : swarmProgress(member, this.#pieces.geometry),
    };
  }

  /**
   * Resolves when a source has answered with a body; rejects when the flight failed before, or with the signal's reason.
   * Who waits here counts as a reader.
   */
  async accept(signal: AbortSignal | undefined): Promise<void> {
    this.#waiting += 1;
    this.#cancelLinger?.();
    try {
      await (signal === undefined ? this.accepted : raceSignal(this.accepted, signal));
    } finally {
      this.#waiting -= 1;
      this.#linger();
    }
  }

  /** Bytes of `range`, ending in an error when the flight fails. Leaving early is nobody's fault. */
  open(range: ByteRange, signal: AbortSignal): Readable {
    const cursor: Cursor = { position: range.start, end: range.end, vouched: [] };
    this.#everRead = true;
    this.#fetches.prefer(range.start);
    return this.#reader(cursor, readFlight(this, range, cursor, signal));
  }

  /** A body of what `bytes` gives; as long as it is open the flight goes on. */
  #reader(cursor: Cursor, bytes: AsyncIterable<Buffer>): Readable {
    this.#cursors.add(cursor);
    this.#cancelLinger?.();
    const body = Readable.from(bytes, { objectMode: false, highWaterMark: 1 });
    const recycle = (chunk: Uint8Array): void => {
      this.#pieces.recycle(chunk);
      this.spool.recycle(chunk);
    };
    body.once("close", () => {
      this.#cursors.delete(cursor);
      this.#linger();
      this.#releaseWhenUnused();
    });
    return Object.assign(body, { recycle });
  }

  /** Ends the flight and everything that reads it; resolves when its file is closed. */
  async close(reason: Error): Promise<void> {
    this.#everRead = true;
    this.#cancel(reason);
    for (const body of this.#given) body.on("error", () => undefined).destroy(reason);
    await this.done.catch(() => undefined);
    this.#releaseWhenUnused();
    await this.#closed.promise;
  }

  #cancel(reason: Error): void {
    this.#ended.abort(reason);
    this.#failure ??= this.isOver ? reason : undefined;
    this.#wake();
  }

  fresh(offset: number, max: number): Buffer | undefined {
    return this.#pieces.fresh(offset, max);
  }

  releasable(offset: number): number {
    // Bytes below the slowest reader and the hash are nobody's any more; only a spool in memory cares.
    if (this.#cursors.size > 0)
      this.spool.forget(
        Math.min(this.#pieces.hashed, ...[...this.#cursors].map((cursor) => cursor.position)),
      );
    return this.#pieces.releasable(offset, this.verified);
  }

  async changed(signal: AbortSignal): Promise<void> {
    this.#throwIfFailed();
    await raceSignal(this.#readable.change, signal);
    this.#throwIfFailed();
  }

  /** Bytes that are all here, as they are in the spool. Counts as a reader: who is being served keeps the flight. */
  #openSpool(range: ByteRange, signal: AbortSignal | undefined): Readable {
    const cursor: Cursor = { position: range.start, end: range.end, vouched: [] };
    const body = this.#reader(cursor, readSpool(this.spool, cursor, signal));
    this.#given.add(body.once("close", () => this.#given.delete(body)));
    return body;
  }

  async #run(): Promise<void> {
    let stored = false;
    const holdBack = new HoldBack({
      ...this.#deps,
      pieces: this.#pieces,
      cursors: this.#cursors,
      sources: () => this.#fetches.candidates.sources,
      vouched: () => this.#readable.notify(),
    });
    try {
      this.#fetches.candidates.look();
      await this.#drive();
      this.verified = true;
      this.#accept.resolve();
      this.#wake();
      await this.#judge();
      stored = await this.#commit();
    } catch (error) {
      this.#failure = error instanceof Error ? error : new Error("the flight failed", { cause: error });
      this.#accept.reject(this.#failure);
      throw this.#failure;
    } finally {
      this.isOver = true;
      holdBack.close();
      this.#cancelLinger?.();
      this.#fetches.close();
      this.#member?.leave(stored);
      this.#wake();
      this.#releaseWhenUnused();
    }
  }

  async #judge(): Promise<void> {
    try {
      await this.#member?.verified();
      await this.#verification.judge();
    } catch (error) {
      this.#deps.logger.warn({ err: error, digest: this.digest }, "who gave wrong bytes cannot be told");
    }
  }

  /** False: the blob is right, but will not be here any more. One in memory stays while it is read; containerd has it then. */
  #commit(): Promise<boolean> {
    const failed = (error: unknown): false => {
      this.#deps.logger.warn({ err: error, digest: this.digest }, "a verified blob could not be stored");
      return false;
    };
    return this.spool.commit().then(() => true, failed);
  }

  /** Keeps sources at work until every piece is here and the whole is right. */
  async #drive(): Promise<void> {
    for (;;) {
      this.#ended.signal.throwIfAborted();
      const { change } = this.#step;
      if (this.#pieces.complete) {
        if (await this.#verification.verify()) return;
        // To hash it all again took a while.
        this.#lastProgress = this.#deps.clock.now();
        continue;
      }
      this.#fetches.assign(() => this.#patienceLeft());
      if (this.#fetches.active === 0) this.#failWithoutHope();
      await change;
    }
  }

  #failWithoutHope(): void {
    const progressed = this.#pieces.received > this.#bytesAtLook;
    const isLost = this.#verification.isSuspect && this.#fetches.upstreamIsOut;
    if (this.#fetches.hope && this.#patienceLeft(isLost ? SUSPECT_PATIENCE_MS : undefined) > 0) return;
    if (progressed && this.#patienceLeft() > 0) {
      this.#bytesAtLook = this.#pieces.received;
      this.#fetches.candidates.look();
      return;
    }
    this.#verification.giveUp();
    throw this.#fetches.candidates.refused
      ? new NotFoundError("BLOB_UNKNOWN", this.digest, { cause: this.#fetches.candidates.errors[0] })
      : new AllSourcesFailedError(this.digest, this.#fetches.candidates.errors);
  }

  #patienceLeft(patience = PATIENCE_MS): number {
    return patience - (this.#deps.clock.now() - this.#lastProgress);
  }

  #linger(): void {
    if (this.isOver || this.#cursors.size > 0 || this.#waiting > 0) return;
    this.#cancelLinger?.();
    this.#cancelLinger = this.#deps.clock.after(LINGER_MS, () =>
      this.#cancel(new DOMException("nobody reads this blob any more", "AbortError")),
    );
  }

  /** A small blob may be complete before whoever asked for it has opened it: then the spool stays a little longer. */
  #releaseWhenUnused(): void {
    if (!this.isOver || this.#cursors.size > 0 || this.#released) return;
    if (this.#failure === undefined && !this.#everRead) {
      this.#everRead = true;
      this.#cancelLinger = this.#deps.clock.after(OPEN_MS, () => this.#releaseWhenUnused());
      return;
    }
    this.#released = true;
    this.#cancelLinger?.();
    this.#closed.resolve(
      this.#giveUpSpool().catch((error: unknown) => {
        this.#deps.logger.warn({ err: error, digest: this.digest }, "a spool could not be released");
      }),
    );
  }

  #giveUpSpool(): Promise<void> {
    const { spool } = this;
    return (
      (this.#verification.isRefuted && this.#deps.refuted?.({ spool, hashes: this.#pieces.hashes })) ||
      spool.release()
    );
  }

  #throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  #wake(): void {
    this.#step.notify();
    this.#readable.notify();
  }
}
