import { LRUCache } from "lru-cache";
import { NotFoundError, SourceError, type Clock, type Repository } from "@p2p-mirror/shared";
import type { Router } from "../routing/router.ts";
import type { Catalog } from "../store/catalog.ts";
import type { Upstream } from "../upstream/upstream.ts";
import type { Access, AccessDecision, AccessRequest } from "./access.ts";
import { collectClaims, type CollectDeps } from "./collect-claims.ts";
import { repositoryKey } from "./records.ts";

/** A repository's public verdict is published again after this. */
const PUBLISH_EVERY_MS = 10 * 60_000;
/** How long a verdict of the cluster, taken while upstream is down, is used without asking again. */
const OUTAGE_VERDICT_MS = 60_000;

export const allowAll: Access = { decide: () => Promise.resolve("allow") };

export interface PublicAccessDeps extends CollectDeps {
  readonly upstream: Upstream;
  readonly router: Router;
  readonly catalog: Catalog;
  readonly clock: Clock;
}

/**
 * Policy `public`: a repository is served when upstream gives it to anybody. Any other is declined, so that containerd
 * asks upstream itself with the Pod's credentials. While upstream cannot say, what this node or, by a signed record, a
 * node of the cluster was told before counts.
 */
export class PublicAccess implements Access {
  readonly #deps: PublicAccessDeps;
  readonly #published = new LRUCache<string, true>({ max: 2_000, ttl: PUBLISH_EVERY_MS });
  readonly #duringOutage: LRUCache<string, AccessDecision>;

  constructor(deps: PublicAccessDeps) {
    this.#deps = deps;
    this.#duringOutage = new LRUCache({ max: 2_000, ttl: OUTAGE_VERDICT_MS, perf: deps.clock });
  }

  async decide(request: AccessRequest, options: { signal: AbortSignal }): Promise<AccessDecision> {
    const { upstream, catalog, clock } = this.#deps;
    try {
      if (!(await upstream.isPublic(request, { ...options, probe: request.wants }))) {
        catalog.rememberPublic(request, undefined);
        return "decline";
      }
      if (this.#publish(request)) catalog.rememberPublic(request, clock.now());
      return "allow";
    } catch (error) {
      if (error instanceof NotFoundError) return "decline";
      if (!(error instanceof SourceError) || !error.temporary) throw error;
      return this.#whileUpstreamIsDown(request, options.signal);
    }
  }

  async #whileUpstreamIsDown(repository: Repository, signal: AbortSignal): Promise<AccessDecision> {
    if (this.#deps.catalog.publicSince(repository) !== undefined) return "allow";
    const key = repositoryKey(repository);
    const known = this.#duringOutage.get(key);
    if (known !== undefined) return known;
    const claims = await collectClaims(key, this.#deps, signal);
    const allowed = claims.some((claim) => claim.kind === "repository" && repositoryKey(claim) === key);
    const decision = allowed ? "allow" : "decline";
    if (!signal.aborted) this.#duringOutage.set(key, decision);
    return decision;
  }

  /** True when it was not published lately. */
  #publish(repository: Repository): boolean {
    const key = repositoryKey(repository);
    if (this.#published.has(key)) return false;
    this.#published.set(key, true);
    this.#deps.router.advertise([key]).catch((error: unknown) => {
      this.#published.delete(key);
      this.#deps.logger.debug({ err: error, key }, "a repository record could not be published");
    });
    return true;
  }
}
