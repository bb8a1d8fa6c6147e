import { linkSignal, raceSignal, type LinkedSignal } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";

/** How long the next holder is waited for before upstream is asked: a lookup that meets dead nodes takes seconds. */
export const LOOKUP_PATIENCE_MS = 1_000;

/** The peers of a lookup, one at a time, each waited for only so long. Disposing ends the lookup, also one that hangs. */
export class PatientLookup {
  readonly #lookup: LinkedSignal;
  readonly #peers: AsyncIterator<Peer>;
  #coming: Promise<IteratorResult<Peer>> | undefined;

  constructor(find: (signal: AbortSignal) => AsyncIterable<Peer>, signal: AbortSignal) {
    this.#lookup = linkSignal([signal]);
    this.#peers = find(this.#lookup.signal)[Symbol.asyncIterator]();
  }

  /** Undefined when the lookup is over, or has nobody yet: it may be asked again. Throws what the lookup throws. */
  async next(patienceMs = LOOKUP_PATIENCE_MS): Promise<Peer | undefined> {
    using patience = linkSignal([this.#lookup.signal], patienceMs);
    this.#coming ??= this.#peers.next();
    let next: IteratorResult<Peer>;
    try {
      next = await raceSignal(this.#coming, patience.signal);
    } catch (error) {
      if (patience.signal.aborted) return undefined;
      throw error;
    }
    if (next.done === true) return undefined;
    this.#coming = undefined;
    return next.value;
  }

  [Symbol.dispose](): void {
    this.#lookup.abort();
    this.#lookup.release();
    // Not awaited: a lookup that hangs must hold nothing up; its signal ends it.
    void this.#peers.return?.().catch(() => undefined);
  }
}
