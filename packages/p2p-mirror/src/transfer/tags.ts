import { LRUCache } from "lru-cache";
import {
  linkSignal,
  NotFoundError,
  SingleFlight,
  SourceError,
  type Clock,
  type Logger,
  type Repository,
} from "@p2p-mirror/shared";
import type { Router } from "../routing/router.ts";
import type { Catalog } from "../store/catalog.ts";
import type { Upstream } from "../upstream/upstream.ts";
import type { ContentOptions, ResolvedTag } from "./content.ts";
import type { TransferMetrics } from "./metrics.ts";
import type { PeerClient } from "./peer-client.ts";
import { patiently } from "./patience.ts";
import type { PublishedRecords } from "./published-records.ts";
import { tagKey, type Claim, type RecordSigner } from "./records.ts";
import { collectClaims } from "./collect-claims.ts";
import { knownClaim } from "./local-content.ts";

type TagClaim = Extract<Claim, { kind: "tag" }>;

/** How long an answer of upstream is given again without asking: a pull asks HEAD and, by some clients, GET by tag. */
const FRESH_MS = 5_000;
const DEADLINE_MS = 45_000;

export interface TagsDeps {
  readonly upstream: Upstream;
  readonly router: Router;
  readonly peerClient: PeerClient;
  readonly catalog: Catalog;
  readonly records: RecordSigner;
  readonly published: PublishedRecords;
  readonly clock: Clock;
  readonly metrics: TransferMetrics;
  readonly logger: Logger;
}

/**
 * Tags are asked at upstream by each node itself: whoever else could answer could poison. Only when upstream is
 * unreachable, answers 5xx or 429, the newest signed record of the cluster counts, and the answer is marked stale.
 */
export class Tags {
  readonly #deps: TagsDeps;
  readonly #fresh: LRUCache<string, ResolvedTag>;
  readonly #resolving = new SingleFlight<ResolvedTag>();
  readonly #closing = new AbortController();

  constructor(deps: TagsDeps) {
    this.#deps = deps;
    this.#fresh = new LRUCache({ max: 5_000, ttl: FRESH_MS, perf: deps.clock });
  }

  async resolve(repository: Repository, tag: string, options: ContentOptions): Promise<ResolvedTag> {
    const key = tagKey(repository, tag);
    const fresh = this.#fresh.get(key);
    if (fresh !== undefined) return fresh;
    return this.#resolving.run(key, () => this.#resolve(repository, tag), options.signal);
  }

  /** Ends what is being asked, and waits for it. */
  async close(): Promise<void> {
    this.#closing.abort(new DOMException("the mirror is closing", "AbortError"));
    await this.#resolving.settled();
  }

  async #resolve(repository: Repository, tag: string): Promise<ResolvedTag> {
    const { clock, metrics, logger } = this.#deps;
    using deadline = linkSignal([this.#closing.signal]);
    const until = clock.now() + DEADLINE_MS;
    // As the source's fault: a decline, whatever upstream was doing at that moment.
    const cancel = clock.after(DEADLINE_MS, () =>
      deadline.abort(new SourceError("NO_FIRST_BYTE", repository.registry)),
    );
    const { signal } = deadline;
    try {
      return await this.#ask(repository, tag, signal);
    } catch (error) {
      if (!(error instanceof SourceError) || !error.temporary) {
        throw error instanceof SourceError
          ? new NotFoundError("MANIFEST_UNKNOWN", tag, { cause: error })
          : error;
      }
      const record = await this.#newestRecord(repository, tag, signal);
      if (record === undefined) {
        // Awaited here: the deadline is released with this function.
        return await patiently(() => this.#ask(repository, tag, signal), until, clock, signal, error);
      }
      metrics.staleServes.inc();
      logger.warn(
        {
          ...repository,
          tag,
          digest: record.descriptor.digest,
          // Of any age: old is better than nothing. Without a known time (a lost index) there is none to say.
          ageSeconds: record.time === 0 ? undefined : Math.round((clock.date() - record.time) / 1_000),
          err: error,
        },
        "upstream cannot be asked, a tag is answered from a record of the cluster",
      );
      return { descriptor: record.descriptor, stale: true };
    } finally {
      cancel();
    }
  }

  async #ask(repository: Repository, tag: string, signal: AbortSignal): Promise<ResolvedTag> {
    const { upstream, catalog, clock, published } = this.#deps;
    const descriptor = await upstream.resolve(repository, tag, { signal });
    const resolved = { descriptor, stale: false };
    catalog.rememberTag({ ...repository, tag, descriptor, resolvedAt: clock.date() });
    this.#fresh.set(tagKey(repository, tag), resolved);
    published.publish(tagKey(repository, tag), descriptor.digest);
    return resolved;
  }

  /** What another node said is kept with its signature: the next who asks may find that node gone. */
  async #newestRecord(
    repository: Repository,
    tag: string,
    signal: AbortSignal,
  ): Promise<TagClaim | undefined> {
    const { catalog, published } = this.#deps;
    const key = tagKey(repository, tag);
    const known = knownClaim(catalog, key)?.claim;
    let newest = known?.kind === "tag" ? known : undefined;
    let heard: string | undefined;
    for (const { claim, record } of await collectClaims(key, this.#deps, signal)) {
      if (claim.kind !== "tag" || tagKey(claim, claim.tag) !== key) continue;
      if (newest === undefined || claim.time > newest.time) [newest, heard] = [claim, record];
    }
    if (newest !== undefined && heard !== undefined) {
      const { descriptor, time } = newest;
      catalog.rememberTag({ ...repository, tag, descriptor, resolvedAt: time, heard });
      published.publish(key, descriptor.digest);
    }
    return newest;
  }
}
