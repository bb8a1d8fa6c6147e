import type { Clock } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import { pause } from "./patience.ts";
import { LOOKUP_PATIENCE_MS, type PatientLookup } from "./patient-lookup.ts";

/** A peer without a free upload slot is asked again after this, and upstream only after `BUSY_PATIENCE_MS` of it. */
const BUSY_PAUSE_MS = 200;
const BUSY_PATIENCE_MS = 2_000;
/** What busy peers name is theirs to say: it must not keep a pull going from one to the next. */
const MAX_PEERS = 32;

export interface HolderQueueDeps {
  readonly lookup: PatientLookup;
  /** False for this node and for peers that were refuted. */
  readonly mayAsk: (peer: Peer) => boolean;
  readonly clock: Clock;
}

/** Who is asked next for one object: who busy peers name, who the lookup finds, and busy peers again a little later. */
export class HolderQueue {
  readonly #deps: HolderQueueDeps;
  readonly #seen = new Set<string>();
  readonly #named: Peer[] = [];
  readonly #busy: { readonly peer: Peer; readonly notBefore: number }[] = [];
  #busyUntil: number | undefined;

  constructor(deps: HolderQueueDeps) {
    this.#deps = deps;
  }

  /** Undefined: there is nobody (any more) to ask. Throws when the lookup fails, and when `signal` aborts a pause. */
  async next(signal: AbortSignal): Promise<Peer | undefined> {
    const { lookup, clock } = this.#deps;
    for (;;) {
      const named = this.#named.shift();
      if (named !== undefined) return named;
      const [busy] = this.#busy;
      const wait = Math.max(0, (busy?.notBefore ?? Infinity) - clock.now());
      const found = await lookup.next(Math.min(wait, LOOKUP_PATIENCE_MS));
      if (found !== undefined) {
        if (this.#isNew(found)) return found;
        continue;
      }
      if (busy === undefined) return undefined;
      this.#busy.shift();
      await pause(Math.max(0, busy.notBefore - clock.now()), clock, signal);
      return busy.peer;
    }
  }

  /** The peer had no time, and named others. */
  busy(peer: Peer, tryInstead: readonly Peer[]): void {
    const now = this.#deps.clock.now();
    this.#named.push(...tryInstead.filter((one) => this.#isNew(one)));
    this.#busyUntil ??= now + BUSY_PATIENCE_MS;
    const notBefore = now + BUSY_PAUSE_MS;
    if (notBefore <= this.#busyUntil) this.#busy.push({ peer, notBefore });
  }

  #isNew(peer: Peer): boolean {
    if (this.#seen.has(peer.id) || this.#seen.size >= MAX_PEERS || !this.#deps.mayAsk(peer)) return false;
    this.#seen.add(peer.id);
    return true;
  }
}
