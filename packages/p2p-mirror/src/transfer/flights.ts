import {
  BufferPool,
  NotFoundError,
  type Clock,
  type Descriptor,
  type Digest,
  type Logger,
  type Repository,
} from "@p2p-mirror/shared";
import type { BlobCache } from "../store/blob-cache.ts";
import { DegradingSpool } from "./degrading-spool.ts";
import { Flight } from "./flight.ts";
import type { FlightSwarm } from "./flight-member.ts";
import type { TransferMetrics } from "./metrics.ts";
import { SMALL_BYTES } from "./small-request.ts";
import type { SourceFinder } from "./source.ts";
import { RefutedBlobs } from "./refuted-blobs.ts";
import { FileSpool, MemorySpool, READ_BYTES, WholeSpool, type Spool } from "./spool.ts";

/** A blob up to this size is kept in memory when it cannot be stored. */
const WHOLE_BYTES = 64 * 1024 * 1024;
/** Of a larger one, as much: so far may a source be ahead of the slowest reader. */
const WINDOW_BYTES = 32 * 1024 * 1024;

/** A manifest may name any size; no layer has this one, and a map of its pieces would block the node. */
const MAX_BLOB_BYTES = 2 ** 40;

export interface FlightsDeps {
  /** Undefined: flights work alone. */
  readonly swarm?: FlightSwarm | undefined;
  readonly cache: BlobCache;
  readonly finder: SourceFinder;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: TransferMetrics;
}

/** The flights of this node: one per digest, as long as it is under way. */
export class Flights {
  readonly #deps: FlightsDeps;
  readonly #flights = new Map<Digest, Promise<Flight>>();
  readonly #open = new Set<Flight>();
  readonly #buffers = new BufferPool(READ_BYTES);
  readonly #refuted: RefutedBlobs;
  #closed = false;

  constructor(deps: FlightsDeps) {
    this.#deps = deps;
    this.#refuted = new RefutedBlobs(deps.clock, (error) => {
      deps.logger.warn({ err: error }, "the spool of a wrong blob could not be released");
    });
  }

  /** The flight that fetches a blob for `origin`, for a reader from `start` on: the one under way, or a new one. */
  async get(blob: Descriptor, origin: Repository, start: number): Promise<Flight> {
    if (blob.size > MAX_BLOB_BYTES)
      throw new NotFoundError("BLOB_UNKNOWN", `${blob.digest} of ${blob.size} bytes`);
    for (;;) {
      const known = this.#flights.get(blob.digest);
      // No `await` between the look and the start: two requests of the same moment share one flight.
      if (known === undefined) return this.#begin(blob, origin, start);
      const running = await known.catch(() => undefined);
      if (running?.size === blob.size && running.canServe({ start, end: blob.size })) {
        running.addOrigin(origin);
        return running;
      }
      if (this.#flights.get(blob.digest) === known) this.#flights.delete(blob.digest);
    }
  }

  /** True while a blob is being fetched. */
  has(digest: Digest): boolean {
    return this.#flights.has(digest);
  }

  /** The flight of a blob that is under way now, if it is of this size. */
  flying(digest: Digest, size: number): Flight | undefined {
    for (const flight of this.#open) if (flight.digest === digest && flight.size === size) return flight;
    return undefined;
  }

  /** For the status page. */
  list(): Flight[] {
    return [...this.#open];
  }

  /** Ends all flights and waits until their files are closed. Readers get an error, that is a FIN short of the end. */
  async close(): Promise<void> {
    this.#closed = true;
    const reason = new DOMException("the mirror is closing", "AbortError");
    await Promise.all([...this.#open].map((flight) => flight.close(reason)));
    await this.#refuted.close();
  }

  #begin(blob: Descriptor, origin: Repository, start: number): Promise<Flight> {
    const created = this.#create(blob, origin, start);
    this.#flights.set(blob.digest, created);
    const forget = (): void => {
      if (this.#flights.get(blob.digest) === created) this.#flights.delete(blob.digest);
    };
    created.then((flight) => flight.done.then(forget, forget), forget);
    return created;
  }

  async #create(blob: Descriptor, origin: Repository, start: number): Promise<Flight> {
    const { cache, finder, clock, logger, metrics, swarm } = this.#deps;
    const left = this.#refuted.take(blob);
    const spool = left?.spool ?? (await this.#spool(blob, origin, cache));
    if (this.#closed) {
      await spool.release();
      throw new DOMException("the mirror is closing", "AbortError");
    }
    // A blob has one membership; a second flight of it (a window that has moved on) works alone. So does one of a blob
    // that is small by a wrong word: its digest may be in a swarm of small objects.
    const isMember = [...this.#open].some((other) => other.digest === blob.digest && !other.isOver);
    const flight = new Flight(
      { ...blob, start, ...(left !== undefined && { left: left.hashes }) },
      {
        spool,
        finder,
        swarm: isMember || blob.size <= SMALL_BYTES ? undefined : swarm,
        clock,
        logger,
        received: (kind, bytes) => metrics.received.inc({ source: kind }, bytes),
        hedged: (won) => metrics.hedges.inc({ outcome: won ? "won" : "lost" }),
        refuted: (wrong) => this.#refuted.keep(blob, wrong),
      },
    );
    flight.addOrigin(origin);
    this.#open.add(flight);
    metrics.flights.inc();
    flight.done
      .catch(() => undefined)
      .finally(() => metrics.flights.dec())
      .catch(() => undefined);
    flight.closed.then(() => this.#open.delete(flight)).catch(() => undefined);
    return flight;
  }

  async #spool(blob: Descriptor, origin: Repository, cache: BlobCache): Promise<Spool> {
    // Bytes from peers wait for the digest of the whole where that has room; it can go on in a swarm then, too.
    const memory = (): WholeSpool | MemorySpool =>
      blob.size <= WHOLE_BYTES ? new WholeSpool(blob.size) : new MemorySpool(WINDOW_BYTES);
    const ingest = await cache.ingest(blob, origin);
    if (ingest?.keeps !== true) this.#deps.metrics.unstored.inc();
    if (ingest === undefined) return memory();
    return new DegradingSpool(new FileSpool(ingest, this.#buffers), memory, (error) => {
      if (ingest.keeps) this.#deps.metrics.unstored.inc();
      this.#deps.logger.warn({ err: error, digest: blob.digest }, "cannot store a blob, serving on without");
    });
  }
}
