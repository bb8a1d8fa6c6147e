import { LRUCache } from "lru-cache";
import type { Clock, Logger } from "@p2p-mirror/shared";
import type { Router, RoutingKey } from "../routing/router.ts";

/** Enough for what a node runs; each of them is said again to others every few hours as long as the node lives. */
export const MAX_RECORDS = 2_000;
/** What was published is published again only after this, unless it changed. */
const PUBLISH_EVERY_MS = 10 * 60_000;

export interface PublishedRecordsDeps {
  readonly router: Router;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** The tags and repositories this node has told the cluster it has a record of; the longest unused are withdrawn. */
export class PublishedRecords {
  readonly #deps: PublishedRecordsDeps;
  readonly #published: LRUCache<RoutingKey, { readonly version: string; readonly at: number }>;
  /** What is being said of a key now: the next word about it waits, so that the last one counts. */
  readonly #saying = new Map<RoutingKey, Promise<void>>();

  constructor(deps: PublishedRecordsDeps, max = MAX_RECORDS) {
    this.#deps = deps;
    this.#published = new LRUCache({
      max,
      dispose: (_, key, reason) => {
        if (reason === "evict") this.#withdraw(key);
      },
    });
  }

  /** Tells the cluster, in the background. False: it was told the same lately. */
  publish(key: RoutingKey, version = ""): boolean {
    const now = this.#deps.clock.now();
    const before = this.#published.get(key);
    if (before?.version === version && now - before.at < PUBLISH_EVERY_MS) return false;
    this.#published.set(key, { version, at: now });
    this.#say(key, async () => {
      try {
        await this.#deps.router.advertise([key]);
      } catch (error) {
        // Still known as published, some may have been told; but due again.
        if (this.#published.has(key)) this.#published.set(key, { version, at: -Infinity });
        throw error;
      }
    });
    return true;
  }

  /** Many at once, the most important first; what is beyond the bound is left out. */
  async publishAll(keys: readonly RoutingKey[], signal: AbortSignal): Promise<void> {
    const kept = keys.slice(0, this.#published.max);
    // Due again at once: what they say now is not known to be what upstream says now.
    for (const key of kept.toReversed()) this.#published.set(key, { version: "", at: -Infinity });
    if (kept.length > 0) await this.#deps.router.advertise(kept, { signal });
  }

  /** It is not so any more. */
  takeBack(key: RoutingKey): void {
    if (this.#published.delete(key)) this.#withdraw(key);
  }

  #withdraw(key: RoutingKey): void {
    this.#say(key, () => this.#deps.router.withdraw([key]));
  }

  #say(key: RoutingKey, work: () => Promise<void>): void {
    const said = (this.#saying.get(key) ?? Promise.resolve())
      .then(work)
      .catch((error: unknown) => {
        this.#deps.logger.debug({ err: error, key }, "a record could not be published or withdrawn");
      })
      .finally(() => {
        if (this.#saying.get(key) === said) this.#saying.delete(key);
      });
    this.#saying.set(key, said);
  }
}
