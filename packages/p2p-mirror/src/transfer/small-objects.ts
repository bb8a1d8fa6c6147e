import {
  AllSourcesFailedError,
  IntegrityError,
  linkSignal,
  NotFoundError,
  raceSignal,
  SingleFlight,
  SourceError,
  type Clock,
  type Descriptor,
  type Digest,
  type Logger,
  type Repository,
} from "@p2p-mirror/shared";
import type { BlobCache } from "../store/blob-cache.ts";
import type { SourceKind } from "./content.ts";
import { PATIENCE_MS } from "./flight.ts";
import type { TransferMetrics } from "./metrics.ts";
import type { MirrorSources } from "./mirror-sources.ts";
import { patiently } from "./patience.ts";
import type { PeerClient } from "./peer-client.ts";
import { readWhole } from "./whole.ts";

/** Up to this size a blob is fetched like a manifest: by one request, in memory. Most configs and many layers are. */
export const SMALL_BYTES = 1024 * 1024;

/** A peer that has not given an object by then is not waited for; the next source is asked. */
const PEER_DEADLINE_MS = 2_000;
/** How long a lookup may take before upstream is asked. */
const LOOKUP_PATIENCE_MS = 1_000;
const MAX_PEERS_ASKED = 4;

export interface SmallObject {
  readonly bytes: Buffer;
  readonly source: SourceKind;
  /** What upstream's Content-Type said; from elsewhere the document itself must tell. */
  readonly mediaType?: string;
}

export interface SmallRequest {
  readonly digest: Digest;
  readonly origin: Repository;
  /** Bytes, where it is known; wrong sizes are refused. */
  readonly size?: number;
  readonly notFound: NotFoundError["code"];
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

/**
 * Objects that fit in memory, fetched once at a time for all who want them: from a peer that holds them, else from
 * upstream. Given out as soon as they are verified; the cache stores them meanwhile.
 */
export class SmallObjects {
  readonly #deps: SmallObjectsDeps;
  readonly #fetches = new SingleFlight<SmallObject>();
  /** Verified, and on their way into the cache: whoever asks now gets them from here. */
  readonly #storing = new Map<Digest, SmallObject>();
  readonly #puts = new Set<Promise<void>>();

  constructor(deps: SmallObjectsDeps) {
    this.#deps = deps;
  }

  async get(request: SmallRequest, signal: AbortSignal): Promise<SmallObject> {
    const { digest, origin } = request;
    const storing = this.#storing.get(digest);
    if (storing !== undefined) return storing;
    const key = `${origin.registry}/${origin.repository}@${digest}`;
    return this.#fetches.run(key, () => this.#fetch(request), signal);
  }

  /** Resolves when nothing is being fetched or stored any more. */
  async settled(): Promise<void> {
    await this.#fetches.settled();
    await Promise.all(this.#puts);
  }

  async #fetch(request: SmallRequest): Promise<SmallObject> {
    using deadline = linkSignal([], PATIENCE_MS);
    const errors: unknown[] = [];
    const object =
      (await this.#fromPeers(request, deadline.signal, errors)) ??
      (await this.#fromUpstream(request, deadline.signal, errors));
    this.#deps.metrics.received.inc({ source: object.source }, object.bytes.length);
    this.#store(request, object);
    return object;
  }

  async #fromPeers(
    { digest, size }: SmallRequest,
    signal: AbortSignal,
    errors: unknown[],
  ): Promise<SmallObject | undefined> {
    const { sources, peerClient } = this.#deps;
    using lookup = linkSignal([signal], LOOKUP_PATIENCE_MS);
    const peers = sources.holders(digest, lookup.signal);
    try {
      for (let asked = 0; asked < MAX_PEERS_ASKED; asked += 1) {
        const next = await raceSignal(peers.next(), lookup.signal);
        if (next.done === true) return undefined;
        const peer = next.value;
        using patience = linkSignal([signal], PEER_DEADLINE_MS);
        try {
          const answer = await peerClient.blob(peer, digest, undefined, { signal: patience.signal });
          const bytes = await readWhole(answer.body, digest, size ?? answer.size, peer.id);
          sources.remember(digest, peer);
          return { bytes, source: "peer" };
        } catch (error) {
          errors.push(error);
          if (error instanceof NotFoundError) sources.missing(digest, peer);
          if (error instanceof IntegrityError) sources.refute(peer);
        }
      }
    } catch (error) {
      errors.push(error);
    } finally {
      // Not awaited: a lookup that hangs must not hold the object up; its signal ends it.
      lookup.abort();
      void peers.return().catch(() => undefined);
    }
    return undefined;
  }

  async #fromUpstream(request: SmallRequest, signal: AbortSignal, errors: unknown[]): Promise<SmallObject> {
    const { digest, notFound, upstream } = request;
    const { clock } = this.#deps;
    try {
      const until = clock.now() + PATIENCE_MS;
      return { ...(await patiently(() => upstream(signal), until, clock, signal)), source: "upstream" };
    } catch (error) {
      const refused =
        error instanceof NotFoundError || (error instanceof SourceError && error.code === "DENIED");
      if (refused) throw new NotFoundError(notFound, digest, { cause: error });
      throw new AllSourcesFailedError(digest, [...errors, error]);
    }
  }

  #store({ digest, origin, describe }: SmallRequest, object: SmallObject): void {
    const descriptor = describe(object);
    this.#storing.set(digest, object);
    const put = this.#deps.cache
      .put(descriptor, object.bytes, origin)
      .catch((error: unknown) => {
        this.#deps.logger.warn({ err: error, digest }, "an object could not be stored");
      })
      .finally(() => {
        this.#storing.delete(digest);
        this.#puts.delete(put);
      });
    this.#puts.add(put);
  }
}
