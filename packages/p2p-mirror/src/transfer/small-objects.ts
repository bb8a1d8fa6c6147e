import { LRUCache } from "lru-cache";
import {
  SingleFlight,
  type Clock,
  type Descriptor,
  type Digest,
  type Logger,
  type Repository,
} from "@p2p-mirror/shared";
import type { BlobCache } from "../store/blob-cache.ts";
import type { Swarm } from "../swarm/swarm.ts";
import type { TransferMetrics } from "./metrics.ts";
import type { MirrorSources } from "./mirror-sources.ts";
import type { PeerClient } from "./peer-client.ts";
import { SmallFetch } from "./small-fetch.ts";
import { LINGER_MS, SmallMembers } from "./small-members.ts";
import { SmallPatience } from "./small-patience.ts";
import type { SmallObject, SmallRequest } from "./small-request.ts";

/** Of what came lately, for other nodes: in a crowd they all want it in the same moment, before it is stored. */
const FRESH_BYTES = 16 * 1024 * 1024;

export interface SmallObjectsDeps {
  /** Undefined: what others fetch at the same time is not looked at. */
  readonly swarm?: Pick<Swarm, "join"> | undefined;
  readonly cache: Pick<BlobCache, "put">;
  readonly sources: MirrorSources;
  readonly peerClient: Pick<PeerClient, "blob">;
  readonly clock: Clock;
  /** From 0 to 1. */
  readonly random: () => number;
  readonly metrics: TransferMetrics;
  readonly logger: Logger;
}

interface Wanted {
  readonly fetch: SmallFetch;
  /** One for each repository. */
  readonly requests: SmallRequest[];
}

/**
 * Objects that fit in memory, fetched once at a time for all who want them, whatever their repository; and once across the
 * uplink for all nodes that want them in the same moment, who are a swarm of one piece. Given out as soon as they are
 * verified, to other nodes, too; the cache stores them meanwhile. What manifests said of their size does not matter: the
 * digest decides.
 */
export class SmallObjects {
  readonly #deps: SmallObjectsDeps;
  readonly #members: SmallMembers | undefined;
  readonly #patience: SmallPatience;
  readonly #fetches = new SingleFlight<SmallObject>();
  /** What is being fetched. */
  readonly #wanted = new Map<string, Wanted>();
  /** Verified, and on their way into the cache: whoever asks now gets them from here. */
  readonly #storing = new Map<Digest, SmallObject>();
  readonly #fresh: LRUCache<Digest, Buffer>;
  /** What goes on after an object was given out. */
  readonly #ending = new Set<Promise<unknown>>();
  readonly #closing = new AbortController();

  constructor(deps: SmallObjectsDeps) {
    this.#deps = deps;
    const { swarm, clock, random } = deps;
    this.#patience = new SmallPatience(clock, random);
    this.#members = swarm && new SmallMembers({ swarm, clock });
    this.#fresh = new LRUCache({
      maxSize: FRESH_BYTES,
      sizeCalculation: (bytes) => bytes.length + 1,
      ttl: LINGER_MS,
      perf: clock,
    });
  }

  async get(request: SmallRequest, signal: AbortSignal): Promise<SmallObject> {
    const storing = this.#storing.get(request.digest);
    if (storing !== undefined) return storing;
    const key = `${request.kind} ${request.digest}`;
    const wanted = this.#wanted.get(key);
    if (wanted?.requests.some(({ origin }) => isSame(origin, request.origin)) === false) {
      wanted.requests.push(request);
      wanted.fetch.add(request);
    }
    return this.#fetches.run(key, () => this.#fetch(key, request), signal);
  }

  /** An object that is here, verified, though perhaps not stored (yet): for other nodes. */
  held(digest: Digest): Buffer | undefined {
    return this.#storing.get(digest)?.bytes ?? this.#fresh.get(digest);
  }

  /** Ends what is being fetched; resolves when nothing is being fetched or stored any more. */
  async close(): Promise<void> {
    this.#closing.abort(new DOMException("the mirror is closing", "AbortError"));
    await this.#fetches.settled();
    this.#members?.close();
    await Promise.all(this.#ending);
  }

  async #fetch(key: string, first: SmallRequest): Promise<SmallObject> {
    this.#closing.signal.throwIfAborted();
    const member = this.#members?.join(first.digest);
    const fetch = new SmallFetch(first, { ...this.#deps, member, patience: this.#patience });
    const requests = [first];
    this.#wanted.set(key, { fetch, requests });
    try {
      const object = await fetch.run(this.#closing.signal);
      this.#deps.metrics.received.inc({ source: object.source }, object.bytes.length);
      this.#store(first, requests, object);
      member?.has();
      return object;
    } finally {
      this.#wanted.delete(key);
      if (member?.complete === false) member.leave();
      this.#endsWith(fetch.settled);
    }
  }

  /** `requests` may grow meanwhile. */
  #store({ digest, describe }: SmallRequest, requests: readonly SmallRequest[], object: SmallObject): void {
    const descriptor = describe(object);
    this.#storing.set(digest, object);
    if (this.#members !== undefined) this.#fresh.set(digest, object.bytes);
    this.#endsWith(
      this.#put(descriptor, requests, object.bytes)
        .catch((error: unknown) => {
          this.#deps.logger.warn({ err: error, digest }, "an object could not be stored");
        })
        .finally(() => this.#storing.delete(digest)),
    );
  }

  #endsWith(work: Promise<unknown>): void {
    const end = work.finally(() => this.#ending.delete(end));
    this.#ending.add(end);
  }

  /** Once with its bytes; for the other repositories it is a link to what is held. */
  async #put(descriptor: Descriptor, requests: readonly SmallRequest[], bytes: Buffer): Promise<void> {
    for (const { origin } of requests) await this.#deps.cache.put(descriptor, bytes, origin);
  }
}

const isSame = (one: Repository, other: Repository): boolean =>
  one.registry === other.registry && one.repository === other.repository;
