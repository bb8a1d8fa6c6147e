import type { Logger } from "@p2p-mirror/shared";
import type { SwarmMetrics } from "./metrics.ts";

/** Whoever holds the cluster secret can make identities; the list must not grow with them. */
const MAX_BANNED = 1_024;
/** Of them in the metrics, the newest: each is a series of its own, on every node. */
const MAX_NAMED = 32;

/** Signers that the digest of a blob has refuted. For the life of this process: an operator who cleans a node restarts it. */
export class Bans {
  readonly #banned = new Set<string>();
  readonly #deps: { readonly logger: Logger; readonly metrics: SwarmMetrics };

  constructor(deps: { readonly logger: Logger; readonly metrics: SwarmMetrics }) {
    this.#deps = deps;
  }

  has(peer: string): boolean {
    return this.#banned.has(peer);
  }

  add(peer: string): void {
    if (this.#banned.has(peer)) return;
    this.#banned.add(peer);
    for (const oldest of this.#banned) if (this.#banned.size > MAX_BANNED) this.#banned.delete(oldest);
    const { bannedSigners } = this.#deps.metrics;
    bannedSigners.set({ peer }, 1);
    const unnamed = this.peers.at(-1 - MAX_NAMED);
    if (unnamed !== undefined) bannedSigners.remove({ peer: unnamed });
    this.#deps.logger.warn({ peer }, "a peer signed hashes that are wrong: its word counts no more");
  }

  /** For the status page. */
  get peers(): string[] {
    return [...this.#banned];
  }
}
