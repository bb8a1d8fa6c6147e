import { LRUCache } from "lru-cache";
import { NotFoundError, SourceError, type Clock, type Repository } from "@p2p-mirror/shared";
import type { Catalog } from "../store/catalog.ts";
import type { Upstream } from "../upstream/upstream.ts";
import type { Access, AccessDecision, AccessRequest } from "./access.ts";
import { collectClaims, type CollectDeps } from "./collect-claims.ts";
import { PATIENCE_MS, patiently } from "./patience.ts";
import type { PublishedRecords } from "./published-records.ts";
import { repositoryKey, type HeardClaim } from "./records.ts";

/**
 * While upstream is down, a verdict of it counts for so long: a repository that was made private is not served for ever
 * to nodes that cannot ask.
 */
const PUBLIC_MS = 7 * 24 * 60 * 60_000;
/** How long the cluster is not asked again about what it did not know. */
const NOT_FOUND_MS = 5_000;

/** Version of a published record that is another node's: the own word, once there is one, is said at once. */
const HEARD = "heard";

export const allowAll: Access = { decide: () => Promise.resolve("allow") };

/** Declines what is asked of these registries, before anything is asked for them. */
export const without = (registries: ReadonlySet<string>, access: Access): Access => ({
  decide: (request, options) =>
    registries.has(request.registry) ? Promise.resolve("decline") : access.decide(request, options),
});

/** Whether a verdict of that time (milliseconds since the epoch) still counts. */
export const isFresh = (since: number | undefined, now: number): boolean =>
  since !== undefined && now - since < PUBLIC_MS;

export interface PublicAccessDeps extends CollectDeps {
  readonly upstream: Upstream;
  readonly published: PublishedRecords;
  readonly catalog: Catalog;
  readonly clock: Clock;
}

/**
 * Policy `public`: a repository is served when upstream gives it to anybody. Any other is declined, so that containerd
 * asks upstream itself with the Pod's credentials. While upstream cannot say, what this node or, by a signed record, a
 * node of the cluster was told in the last seven days counts.
 */
export class PublicAccess implements Access {
  readonly #deps: PublicAccessDeps;
  readonly #notFound: LRUCache<string, true>;

  constructor(deps: PublicAccessDeps) {
    this.#deps = deps;
    this.#notFound = new LRUCache({ max: 2_000, ttl: NOT_FOUND_MS, perf: deps.clock });
  }

  async decide(request: AccessRequest, { signal }: { signal: AbortSignal }): Promise<AccessDecision> {
    try {
      return await this.#ask(request, signal);
    } catch (error) {
      if (error instanceof NotFoundError) return "decline";
      if (!(error instanceof SourceError) || !error.temporary) throw error;
      if (await this.#wasPublic(request, signal)) return "allow";
      if (error.retryAfterMs === undefined) return "decline";
      const { clock } = this.#deps;
      return patiently(() => this.#ask(request, signal), clock.now() + PATIENCE_MS, clock, signal, error);
    }
  }

  async #ask(request: AccessRequest, signal: AbortSignal): Promise<AccessDecision> {
    const { upstream, catalog, clock, published } = this.#deps;
    if (!(await upstream.isPublic(request, { signal, probe: request.wants }))) {
      catalog.rememberPublic(request, undefined);
      published.takeBack(repositoryKey(request));
      return "decline";
    }
    if (published.publish(repositoryKey(request))) catalog.rememberPublic(request, clock.date());
    return "allow";
  }

  /** As upstream said before it went away, to this node or to another, whose word is kept as that of a tag is. */
  async #wasPublic(repository: Repository, signal: AbortSignal): Promise<boolean> {
    const { catalog, clock, published } = this.#deps;
    const now = clock.date();
    if (isFresh(catalog.publicSince(repository), now)) return true;
    const key = repositoryKey(repository);
    if (this.#notFound.has(key)) return false;
    let newest: HeardClaim | undefined;
    for (const heard of await collectClaims(key, this.#deps, signal)) {
      const { claim } = heard;
      if (claim.kind !== "repository" || repositoryKey(claim) !== key || !isFresh(claim.time, now)) continue;
      if (newest === undefined || claim.time > newest.claim.time) newest = heard;
    }
    if (newest !== undefined) {
      catalog.rememberPublic(repository, newest.claim.time, newest.record);
      published.publish(key, HEARD);
    } else if (!signal.aborted) this.#notFound.set(key, true);
    return newest !== undefined;
  }
}
