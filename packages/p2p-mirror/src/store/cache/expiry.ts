import type { Digest } from "@p2p-mirror/shared";
import type { BlobIndex } from "./blob-index.ts";
import type { RegistryLimits } from "./limits.ts";
import type { OutageLog } from "./outage-log.ts";

export interface ExpiryDeps {
  readonly index: BlobIndex;
  readonly outages: OutageLog;
  readonly now: () => number;
  /** Whether the registry answers these days. Not known: it does. */
  readonly reachable: (registry: string) => boolean;
  readonly remove: (digest: Digest) => Promise<void>;
}

/**
 * Lets go of what was not used for its registry's TTL. Each use renews it; time in which the registry could not be
 * reached does not count, and while it cannot be reached nothing of it expires. A blob that several registries gave stays
 * until none of them holds on to it.
 */
export class Expiry {
  readonly #ttls: ReadonlyMap<string, number>;
  readonly #deps: ExpiryDeps;

  constructor(registries: ReadonlyMap<string, RegistryLimits>, deps: ExpiryDeps) {
    this.#ttls = new Map(
      [...registries].flatMap(([registry, { ttlMs }]) =>
        ttlMs === undefined ? [] : [[registry, ttlMs] as const],
      ),
    );
    this.#deps = deps;
  }

  async sweep(): Promise<void> {
    const now = this.#deps.now();
    for (const [registry, ttlMs] of this.#ttls) {
      const reachable = this.#deps.reachable(registry);
      this.#deps.outages.note(registry, reachable, now);
      if (reachable) await this.#sweepRegistry(registry, ttlMs, now);
    }
  }

  async #sweepRegistry(registry: string, ttlMs: number, now: number): Promise<void> {
    const { index, outages } = this.#deps;
    let oldestUse = now;
    for (const entry of index.entries().toArray()) {
      if (!entry.registries.has(registry)) continue;
      const age = now - entry.lastUse;
      if (age <= ttlMs || age - outages.between(registry, entry.lastUse, now) <= ttlMs) {
        oldestUse = Math.min(oldestUse, entry.lastUse);
        continue;
      }
      if (entry.registries.size > 1) index.unlink(entry.digest, registry);
      else await this.#deps.remove(entry.digest);
    }
    outages.forgetBefore(registry, oldestUse);
  }
}
