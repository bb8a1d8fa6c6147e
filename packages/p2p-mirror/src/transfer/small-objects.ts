import {
  AllSourcesFailedError,
  IntegrityError,
  linkSignal,
  MAX_MANIFEST_BYTES,
  NotFoundError,
  SingleFlight,
  SourceError,
  type Clock,
  type Descriptor,
  type Digest,
  type Logger,
  type Repository,
} from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import type { BlobCache } from "../store/blob-cache.ts";
import type { SourceKind } from "./content.ts";
import { PATIENCE_MS } from "./flight.ts";
import { HolderQueue } from "./holder-queue.ts";
import type { TransferMetrics } from "./metrics.ts";
import type { MirrorSources } from "./mirror-sources.ts";
import { patiently } from "./patience.ts";
import { PatientLookup } from "./patient-lookup.ts";
import { BusyError, type PeerClient } from "./peer-client.ts";
import { readWhole, TooLargeError } from "./whole.ts";

/** Up to this size a blob is fetched like a manifest: by one request, in memory. Most configs and many layers are. */
export const SMALL_BYTES = 1024 * 1024;

/** A peer that has not given an object by then is not waited for; the next source is asked. */
const PEER_DEADLINE_MS = 2_000;
/** Of those that had time for an answer. */
const MAX_PEERS_ASKED = 4;

/** How each kind is declined, and how many bytes are read of one. */
const KINDS = {
  manifest: { unknown: "MANIFEST_UNKNOWN", limit: MAX_MANIFEST_BYTES },
  blob: { unknown: "BLOB_UNKNOWN", limit: SMALL_BYTES },
} as const;

export interface SmallObject {
  readonly bytes: Buffer;
  readonly source: SourceKind;
  /** What upstream's Content-Type said; from elsewhere the document itself must tell. */
  readonly mediaType?: string;
}

export interface SmallRequest {
  readonly kind: keyof typeof KINDS;
  readonly digest: Digest;
  readonly origin: Repository;
  /** Asks upstream for it; the bytes need not be verified yet. */
  readonly upstream: (signal: AbortSignal) => Promise<{ bytes: Buffer; mediaType?: string }>;
  /** What to store it as; throws when the bytes are not what was asked for. */
  readonly describe: (object: SmallObject) => Descriptor;
}

export interface SmallObjectsDeps {
  readonly cache: BlobCache;
  readonly sources: MirrorSources;
  readonly peerClient: PeerClient;
  readonly clock: Clock;
  readonly metrics: TransferMetrics;
  readonly logger: Logger;
}

const isRefusal = (error: unknown): boolean =>
  error instanceof NotFoundError || (error instanceof SourceError && error.code === "DENIED");

/**
 * Objects that fit in memory, fetched once at a time for all who want them, whatever their repository: from a peer that
 * holds them, else from the upstreams of those who want them, in turn. Given out as soon as they are verified; the cache
 * stores them meanwhile. What manifests said of their size does not matter: the digest decides.
 */
export class SmallObjects {
  readonly #deps: SmallObjectsDeps;
  readonly #fetches = new SingleFlight<SmallObject>();
  /** Who wants what is being fetched, one request for each repository. */
  readonly #wanted = new Map<string, SmallRequest[]>();
  /** Verified, and on their way into the cache: whoever asks now gets them from here. */
  readonly #storing = new Map<Digest, SmallObject>();
  readonly #puts = new Set<Promise<void>>();
  readonly #closing = new AbortController();

  constructor(deps: SmallObjectsDeps) {
    this.#deps = deps;
  }

  async get(request: SmallRequest, signal: AbortSignal): Promise<SmallObject> {
    const storing = this.#storing.get(request.digest);
    if (storing !== undefined) return storing;
    const key = `${request.kind} ${request.digest}`;
    const wanted = this.#wanted.get(key);
    if (wanted?.some(({ origin }) => isSame(origin, request.origin)) === false) wanted.push(request);
    return this.#fetches.run(key, () => this.#fetch(key, request), signal);
  }

  /** Ends what is being fetched; resolves when nothing is being fetched or stored any more. */
  async close(): Promise<void> {
    this.#closing.abort(new DOMException("the mirror is closing", "AbortError"));
    await this.#fetches.settled();
    await Promise.all(this.#puts);
  }

  async #fetch(key: string, first: SmallRequest): Promise<SmallObject> {
    const wanted = [first];
    this.#wanted.set(key, wanted);
    try {
      using deadline = linkSignal([this.#closing.signal], PATIENCE_MS);
      deadline.signal.throwIfAborted();
      const errors: unknown[] = [];
      const object =
        (await this.#fromPeers(first, deadline.signal, errors)) ??
        (await this.#fromUpstreams(first, wanted, deadline.signal, errors));
      this.#deps.metrics.received.inc({ source: object.source }, object.bytes.length);
      this.#store(first, wanted, object);
      return object;
    } finally {
      this.#wanted.delete(key);
    }
  }

  async #fromPeers(
    { kind, digest }: SmallRequest,
    signal: AbortSignal,
    errors: unknown[],
  ): Promise<SmallObject | undefined> {
    const { sources, clock } = this.#deps;
    using lookup = new PatientLookup((looking) => sources.holders(digest, looking), signal);
    const holders = new HolderQueue({ lookup, clock, mayAsk: (peer) => sources.mayAsk(peer) });
    try {
      for (let answers = 0; answers < MAX_PEERS_ASKED && !signal.aborted;) {
        const peer = await holders.next(signal);
        if (peer === undefined) return undefined;
        try {
          const bytes = await this.#fromPeer(peer, digest, KINDS[kind].limit, signal);
          // Layers and configs have a parent to remember holders for.
          if (kind === "manifest") sources.remember(digest, peer);
          return { bytes, source: "peer" };
        } catch (error) {
          if (error instanceof BusyError) {
            if (!errors.some((one) => one instanceof BusyError)) errors.push(error);
            holders.busy(peer, error.tryInstead);
            continue;
          }
          answers += 1;
          errors.push(error);
          if (error instanceof NotFoundError) sources.missing(digest, peer);
          // Of a size nobody knows the truth before the bytes are here.
          if (error instanceof IntegrityError && error.code === "DIGEST_MISMATCH") sources.refute(peer);
        }
      }
    } catch (error) {
      errors.push(error);
    }
    return undefined;
  }

  async #fromPeer(peer: Peer, digest: Digest, limit: number, signal: AbortSignal): Promise<Buffer> {
    using patience = linkSignal([signal], PEER_DEADLINE_MS);
    const { size, body } = await this.#deps.peerClient.blob(peer, digest, undefined, {
      signal: patience.signal,
    });
    return await readWhole(body, digest, { size, limit, source: peer.id });
  }

  /** `wanted` may grow meanwhile. */
  async #fromUpstreams(
    { kind, digest }: SmallRequest,
    wanted: readonly SmallRequest[],
    signal: AbortSignal,
    errors: unknown[],
  ): Promise<SmallObject> {
    const { clock } = this.#deps;
    const until = clock.now() + PATIENCE_MS;
    const failures: unknown[] = [];
    for (const { upstream } of wanted) {
      try {
        return { ...(await patiently(() => upstream(signal), until, clock, signal)), source: "upstream" };
      } catch (error) {
        if (error instanceof TooLargeError) throw error;
        failures.push(error);
      }
    }
    const tooLarge = errors.find((error) => error instanceof TooLargeError);
    if (tooLarge !== undefined) throw tooLarge;
    if (failures.every(isRefusal)) {
      throw new NotFoundError(KINDS[kind].unknown, digest, { cause: failures[0] });
    }
    throw new AllSourcesFailedError(digest, [...errors, ...failures]);
  }

  #store({ digest, describe }: SmallRequest, wanted: readonly SmallRequest[], object: SmallObject): void {
    const descriptor = describe(object);
    this.#storing.set(digest, object);
    const put = this.#put(descriptor, wanted, object.bytes)
      .catch((error: unknown) => {
        this.#deps.logger.warn({ err: error, digest }, "an object could not be stored");
      })
      .finally(() => {
        this.#storing.delete(digest);
        this.#puts.delete(put);
      });
    this.#puts.add(put);
  }

  /** Once with its bytes; for the other repositories it is a link to what is held. */
  async #put(descriptor: Descriptor, wanted: readonly SmallRequest[], bytes: Buffer): Promise<void> {
    for (const { origin } of wanted) await this.#deps.cache.put(descriptor, bytes, origin);
  }
}

const isSame = (one: Repository, other: Repository): boolean =>
  one.registry === other.registry && one.repository === other.repository;
