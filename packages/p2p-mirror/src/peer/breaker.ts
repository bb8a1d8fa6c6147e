/** What a permitted request says about its peer. The first word counts; `release` must come last, in any case. */
export interface Permit {
  /** The peer answered, whatever it said (404 and busy included). */
  alive(): void;
  /** It delivered all that was asked, so many bytes. */
  served(bytes: number): void;
  /** Nobody answered at its address: opens the breaker at once, unless it answered somebody else meanwhile. */
  dead(): void;
  /** No connection, but the answer to that came at once: as `dead`, for a shorter time. */
  refused(): void;
  /** It was silent, stalled or cut; the second such in a row opens the breaker. */
  failed(): void;
  /** It was asked, and no byte came for seconds, whoever gave up then: opens nothing, but counts (`faultsInARow`). */
  silent(): void;
  /** Over without a word (the caller left): frees the place of a probe. */
  release(): void;
}

export interface BreakerOptions {
  /** How long a peer is left alone, in milliseconds. */
  readonly openMs: number;
  /** The same after a connection that was refused or reset: another try costs next to nothing. */
  readonly refusedMs: number;
  /** Faults of a living peer in a row that open it. */
  readonly faults: number;
}

/** Packets of full size have come with so many bytes, jumbo frames too. */
const LARGE_BYTES = 16 * 1024;
/** Silence of long ago is none any more. */
const SILENCE_COUNTS_MS = 600_000;

/**
 * Circuit breaker of one peer. Closed: all may try. Open for a while: nobody does, so that a dead node costs each flight
 * nothing instead of a dial timeout. Then half-open: one request tries, and its outcome decides.
 */
export class Breaker {
  readonly #options: BreakerOptions;
  readonly #now: () => number;
  readonly #onTrip: () => void;
  #openUntil: number | undefined;
  #probing = false;
  #faults = 0;
  #inARow = 0;
  /** Since a large answer came: where only packets of full size are lost, small ones go on to come between. */
  #silences = 0;
  #silentAt = -Infinity;
  /** When it last answered. */
  #aliveAt = -Infinity;

  constructor(options: BreakerOptions, deps: { now: () => number; onTrip: () => void }) {
    this.#options = options;
    this.#now = deps.now;
    this.#onTrip = deps.onTrip;
  }

  /** The peer is left alone now. */
  get open(): boolean {
    return this.#openUntil !== undefined && this.#now() < this.#openUntil;
  }

  /** Faults since it last delivered something, and silences since that was something large; over all openings. */
  get faultsInARow(): number {
    const silences = this.#now() - this.#silentAt < SILENCE_COUNTS_MS ? this.#silences : 0;
    return Math.max(this.#inARow, silences);
  }

  /** Undefined: leave the peer alone now. */
  admit(): Permit | undefined {
    const probe = this.#openUntil !== undefined;
    if (this.#openUntil !== undefined) {
      if (this.#probing || this.#now() < this.#openUntil) return undefined;
      this.#probing = true;
    }
    let holdsProbe = probe;
    const began = this.#now();
    const endProbe = (): void => {
      if (holdsProbe) this.#probing = false;
      holdsProbe = false;
    };
    const alive = (): void => {
      endProbe();
      this.#openUntil = undefined;
      this.#aliveAt = this.#now();
    };
    // A peer whose processors are busy may be late for one while it answers another; its connections are good.
    const gone = (openMs: number): void => {
      endProbe();
      if (this.#aliveAt <= began) this.#trip(openMs);
    };
    return {
      alive,
      served: (bytes) => {
        alive();
        this.#faults = 0;
        this.#inARow = 0;
        if (bytes >= LARGE_BYTES) this.#silences = 0;
      },
      silent: () => {
        this.#silences += 1;
        this.#silentAt = this.#now();
      },
      dead: () => gone(this.#options.openMs),
      refused: () => gone(this.#options.refusedMs),
      failed: () => {
        const wasProbe = holdsProbe;
        endProbe();
        this.#faults += 1;
        this.#inARow += 1;
        if (wasProbe || this.#faults >= this.#options.faults) this.#trip(this.#options.openMs);
      },
      release: endProbe,
    };
  }

  #trip(openMs: number): void {
    // Requests that were under way when the peer died fail one after the other; that is one trip.
    if (this.#openUntil === undefined || this.#now() >= this.#openUntil) this.#onTrip();
    this.#openUntil = this.#now() + openMs;
    this.#faults = 0;
  }
}
