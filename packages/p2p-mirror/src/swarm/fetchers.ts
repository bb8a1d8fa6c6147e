import { TIMES } from "./times.ts";

/** A member as the lease table sees it. */
export interface Fetcher {
  readonly id: string;
  readonly zone: string;
  /** Counts up with every member that comes; who was first is asked first. */
  readonly order: number;
  /** Upstream said 401 or 403 to it. */
  denied: boolean;
  /** Failures in a row, and until when it rests after them. */
  failures: number;
  restsUntil: number;
  /** Bytes a second of what it fetched lately; undefined until it fetched anything. */
  rate: number | undefined;
  /** Far slower than the others: gets no lease while they can, until it is tried again. */
  slow: boolean;
  /** When it got a lease or was measured last. */
  triedAt: number;
  leases: number;
  /** When it got bytes last. */
  progressAt: number;
}

const RATE_WEIGHT = 0.5;
/** Who has failed so often in a row comes after all others, however well it did before. */
const OFTEN = 3;
const FIRST_REST_MS = 500;
/** Soon after upstream is back somebody must try. */
const LONGEST_REST_MS = 2_000;
/** Its rate against the median of the others. */
const SLOW_SHARE = 1 / 4;
/**
 * Only a lease shows that somebody is slow no more: an uplink may be full, or a node busy, for a second of a pull that takes
 * minutes. One that still is loses it after `SLOW_AFTER_MS` of the lease table, and readers wait so long for its first piece.
 */
const TRY_AGAIN_MS = 60_000;

/**
 * Whoever takes over from a silent holder begins its piece anew, of which half is lost on average: so much of one may pass, at
 * the rate that members have, before that is the better way. Where two dozen requests share a thin link each is silent for
 * seconds at a time: TLS gives a record of 16 KiB when all of it is here, TCP sends again what was lost.
 */
const SILENT_SHARE = 1 / 2;

/** Who may fetch from upstream, and how well they do. */
export class Fetchers {
  readonly #fetchers = new Map<string, Fetcher>();
  readonly #pieceSize: number;
  #order = 0;

  constructor(pieceSize: number) {
    this.#pieceSize = pieceSize;
  }

  enter(id: string, zone: string, denied: boolean): void {
    const known = this.#fetchers.get(id);
    this.#fetchers.set(id, {
      id,
      zone,
      order: known?.order ?? this.#order++,
      denied,
      failures: 0,
      restsUntil: 0,
      rate: undefined,
      slow: false,
      triedAt: -Infinity,
      leases: known?.leases ?? 0,
      progressAt: -Infinity,
    });
  }

  remove(id: string): void {
    this.#fetchers.delete(id);
  }

  get(id: string): Fetcher | undefined {
    return this.#fetchers.get(id);
  }

  /** Those that upstream lets in, as far as is known. */
  get allowed(): number {
    let count = 0;
    for (const one of this.#fetchers.values()) if (!one.denied) count += 1;
    return count;
  }

  /** Those that hold a lease. */
  get holders(): number {
    let count = 0;
    for (const one of this.#fetchers.values()) if (one.leases > 0) count += 1;
    return count;
  }

  measured(fetcher: Fetcher, bytes: number, ms: number, now: number): void {
    const rate = (bytes / ms) * 1_000;
    fetcher.triedAt = now;
    fetcher.rate = fetcher.rate === undefined ? rate : fetcher.rate + RATE_WEIGHT * (rate - fetcher.rate);
    const median = this.medianRate(fetcher);
    fetcher.slow = median !== undefined && fetcher.rate < median * SLOW_SHARE;
  }

  failed(fetcher: Fetcher, now: number): void {
    fetcher.failures += 1;
    fetcher.restsUntil = now + Math.min(LONGEST_REST_MS, FIRST_REST_MS * 2 ** (fetcher.failures - 1));
  }

  /** The median rate of all but one; undefined when nothing is known. */
  medianRate(except?: Fetcher): number | undefined {
    const rates: number[] = [];
    for (const one of this.#fetchers.values()) {
      if (one !== except && one.rate !== undefined && !one.denied) rates.push(one.rate);
    }
    return rates.toSorted((a, b) => a - b)[Math.floor(rates.length / 2)];
  }

  /** Another one could take over from this one now. */
  hasBetterThan(fetcher: Fetcher, now: number): boolean {
    for (const one of this.#fetchers.values()) {
      if (one !== fetcher && !one.denied && !one.slow && one.restsUntil <= now) return true;
    }
    return false;
  }

  /**
   * Those that may be given a lease now, best first: who is not slow (who was, a minute ago, comes last), who does not fail all the
   * time, who has fetched before (its connection and token are warm), whose zone has the fewest holders, who came first.
   */
  candidates(now: number, mayHave: (fetcher: Fetcher) => boolean): Fetcher[] {
    const zones = new Map<string, number>();
    const found: Fetcher[] = [];
    let fast = false;
    for (const one of this.#fetchers.values()) {
      if (one.leases > 0) zones.set(one.zone, (zones.get(one.zone) ?? 0) + 1);
      if (one.denied || one.restsUntil > now) continue;
      fast ||= !one.slow;
      if (mayHave(one)) found.push(one);
    }
    return found
      .filter((one) => !one.slow || !fast || now - one.triedAt >= TRY_AGAIN_MS)
      .toSorted(
        (a, b) =>
          Number(a.slow) - Number(b.slow) ||
          Number(a.failures >= OFTEN) - Number(b.failures >= OFTEN) ||
          Number(a.rate === undefined) - Number(b.rate === undefined) ||
          (zones.get(a.zone) ?? 0) - (zones.get(b.zone) ?? 0) ||
          a.order - b.order,
      );
  }

  /** Bytes a second of all holders but one. */
  rateOfHolders(except: Fetcher): number {
    let sum = 0;
    for (const one of this.#fetchers.values()) if (one !== except && one.leases > 0) sum += one.rate ?? 0;
    return sum;
  }

  /** Any of them, but perhaps one, has got bytes since then. */
  anyProgressSince(time: number, except?: Fetcher): boolean {
    for (const one of this.#fetchers.values()) if (one !== except && one.progressAt > time) return true;
    return false;
  }

  /** The time a lease may be without progress: less when upstream gives bytes to others, so that it is not upstream. */
  patience(holder: Fetcher, hasBytes: boolean, now: number): number {
    const due = (SILENT_SHARE * this.#pieceSize * 1_000) / (this.medianRate() ?? Infinity);
    const ms = Math.max(TIMES.leaseTtl, Math.min(due, TIMES.stalled));
    if (this.anyProgressSince(now - ms, holder)) return ms;
    // Nobody gets anything: where no lease has begun, more at a time than the path can begin may be why.
    return hasBytes ? TIMES.stalled : TIMES.firstByte;
  }
}
