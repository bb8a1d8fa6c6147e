import type { PieceGeometry } from "../transfer/pieces.ts";
import { Fetchers, type Fetcher } from "./fetchers.ts";
import { Runs, type Run } from "./runs.ts";
import type { HandBackReason, Lease } from "./swarm.ts";
import { TIMES } from "./times.ts";

const MIB = 1024 * 1024;
/**
 * A run is at most so long, or what its holder brings in half a second: a request takes a while to begin. At first it is
 * half of that, until it is known how fast its holder is.
 */
const LONGEST_RUN = 16 * MIB;
const QUICKEST_RUN_MS = 500;
const FIRST_RUN = 8 * MIB;
/** Less is not worth a request of its own, unless a piece is smaller. */
const SHORTEST_RUN = MIB;
/** A run is what its holder brings in about this time. */
const RUN_MS = 2_500;
/** A holder with less left than it brings in this time gets the next one, so that there is no gap. */
const NEARLY_DONE_MS = 500;
/** A rate is measured over no less. */
const MEASURE_MS = 200;
/** Before this, a lease says nothing about its holder. */
const SLOW_AFTER_MS = 1_500;
/** A piece is left to faster holders when they will be through with everything sooner: at least this much, and this share. */
const LAST_MS = 250;
const LAST_SHARE = 1.25;
/** The piece under way is another's to begin anew when it would have it that many times as soon, and so much sooner. */
const ANEW_FACTOR = 2;
const ANEW_MS = 500;
/** So many members may hold leases as soon as the first bytes of as many have come: one alone may be the slowest. */
const FEW = 3;
const DEFAULT_PAUSE_MS = 1_000;

export interface LeaseTableOptions {
  readonly geometry: PieceGeometry;
  /** Members that fetch from upstream at a time. */
  readonly maxFetchers: number;
  /** From 0 to 1, for lease IDs. */
  readonly random: () => number;
  /** No member has the piece. */
  readonly missing: (piece: number) => boolean;
  /** This member has all, and fetches nothing any more, even if others cannot get it from there; default: none has. */
  readonly complete?: (id: string) => boolean;
}

/**
 * Which member fetches which pieces from upstream. Lowest missing pieces first, since everybody reads in order; runs that
 * shrink towards the end, so that all finish together; nothing for ever. A lone member gets everything in one run, which
 * is cut when others come. Pure and synchronous: it is told the time and what happens, and `assign` says who is to be told.
 */
export class LeaseTable {
  readonly #options: LeaseTableOptions;
  readonly #geometry: PieceGeometry;
  readonly #leases: Runs;
  readonly #fetchers: Fetchers;
  readonly #changed = new Set<string>();
  /** Bytes, of all leases so far. */
  brought = 0;
  /** Upstream has no ranges: one holder streams the whole. */
  #unranged = false;
  /** Members that may hold leases now: fewer when upstream has enough, one more with each lease that is through. */
  #limit: number;
  #pausedUntil = 0;

  constructor(options: LeaseTableOptions) {
    this.#options = options;
    this.#geometry = options.geometry;
    this.#fetchers = new Fetchers(options.geometry.pieceSize);
    this.#leases = new Runs(options.geometry, options.missing);
    this.#limit = options.maxFetchers;
  }

  /** A member that may fetch; `held` are leases it has from another coordinator. */
  enter(
    id: string,
    about: { readonly zone: string; readonly denied: boolean; readonly held: readonly Lease[] },
    now: number,
  ): void {
    this.#fetchers.enter(id, about.zone, about.denied);
    for (const lease of about.denied ? [] : about.held) this.#adopt(id, lease, now);
    this.#changed.add(id);
    this.#trim(now);
  }

  /** It left, or fell silent: what it held is free. */
  leave(id: string): void {
    this.#dropAll(id);
    this.#fetchers.remove(id);
    this.#changed.delete(id);
  }

  leasesOf(holder: string): Lease[] {
    return this.#leases
      .of(holder)
      .map(({ id, next, end }) => ({ id, first: this.#unranged ? 0 : next, end }))
      .toSorted((a, b) => a.first - b.first);
  }

  /** All leases there are, with their holders. */
  get all(): (Lease & { readonly holder: string })[] {
    return [...this.#leases].map(({ id, holder, next, end }) => ({ id, holder, first: next, end }));
  }

  /** Members that upstream lets in, as far as is known. */
  get fetchers(): number {
    return this.#fetchers.allowed;
  }

  pausedMs(now: number): number {
    return Math.max(0, this.#pausedUntil - now);
  }

  /** The holder has got `bytes` bytes of the lease so far. Only more than before renews it. */
  progress(holder: string, id: number, said: number, now: number): void {
    const bytes = Math.min(said, this.#geometry.size);
    const lease = this.#leases.get(id);
    const fetcher = this.#fetchers.get(holder);
    if (lease?.holder !== holder || fetcher === undefined || !(bytes > lease.bytes)) return;
    if (lease.bytes === 0 && this.#limit < FEW) this.#raiseLimit();
    this.brought += bytes - lease.bytes;
    lease.bytes = bytes;
    lease.renewedAt = now;
    fetcher.progressAt = now;
    fetcher.failures = 0;
    const elapsed = now - lease.measuredAt;
    if (elapsed < MEASURE_MS) return;
    if (lease.measuredBytes !== undefined) {
      this.#fetchers.measured(fetcher, bytes - lease.measuredBytes, elapsed, now);
    }
    lease.measuredAt = now;
    lease.measuredBytes = bytes;
  }

  handBack(holder: string, id: number, why: HandBackReason, now: number): void {
    const lease = this.#leases.get(id);
    const fetcher = this.#fetchers.get(holder);
    if (fetcher === undefined || (lease !== undefined && lease.holder !== holder)) return;
    switch (why.kind) {
      case "unauthorized":
        fetcher.denied = true;
        this.#dropAll(holder);
        return;
      case "failed":
        this.#fetchers.failed(fetcher, now);
        this.#drop(lease);
        return;
      case "rate-limited": {
        const asked = why.retryAfterMs ?? DEFAULT_PAUSE_MS;
        this.#pausedUntil = Math.max(this.#pausedUntil, now + Math.min(TIMES.longestPause, asked));
        this.#limit = Math.max(1, Math.floor(this.#limit / 2));
        this.#drop(lease);
        return;
      }
      case "unranged":
        this.#becomeUnranged(fetcher, now);
    }
  }

  /** Looks after what time brings, and gives out what can be given. Returns the members whose leases are others now. */
  assign(now: number): string[] {
    this.#retire();
    for (const lease of this.#leases) this.#judge(lease, now);
    if (now >= this.#pausedUntil) while (this.#grantOne(now));
    const changed = [...this.#changed];
    this.#changed.clear();
    return changed;
  }

  #grantOne(now: number): boolean {
    for (const fetcher of this.#free(now)) {
      const run = this.#unranged ? this.#whole(fetcher) : this.#leases.lowestFree(this.#runBytes(fetcher));
      if (run !== undefined && !this.#wouldBeLast(fetcher, run.first)) {
        this.#grant(fetcher, run.first, run.end, now);
        return true;
      }
      if (run === undefined && fetcher.leases === 0 && this.#takeOver(fetcher, now)) return true;
    }
    return false;
  }

  /** Those that may be given a lease now, best first; `holders` have one. */
  #free(now: number, holders = this.#fetchers.holders): Fetcher[] {
    const spare = holders < (this.#unranged ? 1 : this.#limit);
    const { complete } = this.#options;
    return this.#fetchers.candidates(now, (one) => {
      if (complete?.(one.id) === true) return false;
      return one.leases === 0 ? spare : one.leases === 1 && this.#nearlyDone(one);
    });
  }

  #grant(fetcher: Fetcher, first: number, end: number, now: number): void {
    // Stays unique from one coordinator to the next.
    const id = Math.floor(this.#options.random() * 2 ** 48);
    this.#hold(fetcher, { id, first, end }, now, 0);
  }

  #hold(fetcher: Fetcher, lease: Lease, now: number, measuredBytes: number | undefined): void {
    this.#leases.add(fetcher.id, lease, now, measuredBytes);
    fetcher.leases += 1;
    fetcher.triedAt = now;
    this.#changed.add(fetcher.id);
  }

  #adopt(holder: string, { id, first, end }: Lease, now: number): void {
    const fetcher = this.#fetchers.get(holder);
    if (
      fetcher === undefined ||
      this.#leases.get(id) !== undefined ||
      first < 0 ||
      end > this.#geometry.count
    )
      return;
    let stop = first;
    while (stop < end && !this.#leases.isLeased(stop)) stop += 1;
    if (stop > first) this.#hold(fetcher, { id, first, end: stop }, now, undefined);
  }

  #drop(lease: Run | undefined): void {
    if (lease === undefined || !this.#leases.delete(lease.id)) return;
    const fetcher = this.#fetchers.get(lease.holder);
    if (fetcher !== undefined) fetcher.leases -= 1;
    this.#changed.add(lease.holder);
  }

  #dropAll(holder: string): void {
    for (const lease of this.#leases.of(holder)) this.#drop(lease);
  }

  /** Ends leases of which every piece is here, and cuts off what others have brought. */
  #retire(): void {
    const { missing } = this.#options;
    for (const lease of this.#leases) {
      const reached = this.#leases.position(lease);
      while (lease.next < lease.end && !missing(lease.next)) lease.next += 1;
      if (lease.next === lease.end) {
        this.#drop(lease);
        this.#raiseLimit();
      } else if (!this.#unranged) {
        // The holder is behind what is missing: it has not brought these itself, and need not.
        if (this.#geometry.start(lease.next) > reached + this.#geometry.pieceSize)
          this.#changed.add(lease.holder);
        let end = lease.next + 1;
        while (end < lease.end && missing(end)) end += 1;
        if (end < lease.end) this.#cut(lease, end);
      }
    }
  }

  /** Takes a lease, or its far part, from a holder that does not get on while another one could. */
  #judge(lease: Run, now: number): void {
    const fetcher = this.#fetchers.get(lease.holder);
    if (fetcher === undefined || !this.#fetchers.hasBetterThan(fetcher, now)) return;
    const idle = now - lease.renewedAt;
    // Patience is never shorter: it is not asked for at every turn.
    if (idle >= TIMES.leaseTtl && idle >= this.#fetchers.patience(fetcher, lease.bytes > 0, now)) {
      this.#fetchers.failed(fetcher, now);
      this.#drop(lease);
      // More requests at once than the path to upstream can begin in time, or it is upstream: one will show.
      if (!this.#fetchers.anyProgressSince(lease.grantedAt)) this.#limit = 1;
      return;
    }
    if (!fetcher.slow || now - lease.grantedAt < SLOW_AFTER_MS || this.#unranged) return;
    if (lease.end > lease.next + 1) this.#cut(lease, lease.next + 1);
    else if (this.#free(now, this.#fetchers.holders - 1).some((one) => this.#isSoonerAnew(lease, one, now)))
      this.#drop(lease);
  }

  #raiseLimit(): void {
    this.#limit = Math.min(this.#limit + 1, this.#options.maxFetchers);
  }

  /**
   * Nothing is free: the far half of the lease that would last longest, when this one would be done with it earlier; or its
   * last piece, when it would be much earlier.
   */
  #takeOver(fetcher: Fetcher, now: number): boolean {
    let longest: Run | undefined;
    for (const lease of this.#leases) {
      if (longest === undefined || this.#leftMs(lease) > this.#leftMs(longest)) longest = lease;
    }
    if (longest === undefined || this.#unranged) return false;
    const { end } = longest;
    if (end - longest.next === 1 && this.#isSoonerAnew(longest, fetcher, now)) {
      this.#drop(longest);
      this.#grant(fetcher, end - 1, end, now);
      return true;
    }
    const last = this.#leases.lastByte(longest);
    const half = this.#geometry.at(Math.floor((this.#reached(longest, now) + last) / 2)) + 1;
    if (half >= longest.end || half <= longest.next) return false;
    const bytes = last - this.#geometry.start(half);
    if (bytes < Math.min(SHORTEST_RUN, this.#geometry.pieceSize)) return false;
    if (this.#msFor(fetcher, bytes) > this.#leftMs(longest)) return false;
    this.#cut(longest, half);
    this.#grant(fetcher, half, end, now);
    return true;
  }

  /** Where its holder will be by now, since it reports twice a second only: what it has is not to be given to others. */
  #reached(lease: Run, now: number): number {
    const rate = this.#fetchers.get(lease.holder)?.rate ?? 0;
    const since = (rate * (now - lease.renewedAt)) / 1_000;
    return Math.min(this.#leases.position(lease) + since, this.#leases.lastByte(lease) - 1);
  }

  #cut(lease: Run, end: number): void {
    lease.end = end;
    this.#changed.add(lease.holder);
  }

  /** Long leases of the time when there was one member are cut to what is fair now. */
  #trim(now: number): void {
    if (this.#unranged || this.#fetchers.allowed < 2) return;
    for (const lease of this.#leases) {
      const fetcher = this.#fetchers.get(lease.holder);
      if (fetcher === undefined) continue;
      const position = this.#reached(lease, now);
      const fair = this.#runBytes(fetcher);
      if (this.#leases.lastByte(lease) - position <= 2 * fair) continue;
      this.#cut(lease, Math.max(lease.next, this.#geometry.at(position + fair)) + 1);
    }
  }

  /** Near the end: the others will have everything before this one has its next piece. */
  #wouldBeLast(fetcher: Fetcher, piece: number): boolean {
    if (fetcher.rate === undefined || this.#unranged) return false;
    const others = this.#fetchers.rateOfHolders(fetcher);
    if (others === 0) return false;
    const own = this.#msFor(fetcher, this.#geometry.length(piece));
    return own > LAST_MS && own > ((this.#leases.openBytes * LAST_SHARE) / others) * 1_000;
  }

  #whole(fetcher: Fetcher): { first: number; end: number } | undefined {
    const done = this.#leases.size > 0 || fetcher.leases > 0 || this.#leases.openBytes === 0;
    return done ? undefined : { first: 0, end: this.#geometry.count };
  }

  #becomeUnranged(fetcher: Fetcher, now: number): void {
    const whole = [...this.#leases].find(
      ({ first, end }) => this.#unranged && first === 0 && end === this.#geometry.count,
    );
    // Who was given the whole finds out a moment later, and asks anew.
    if (whole !== undefined && whole.holder !== fetcher.id) return;
    this.#unranged = true;
    for (const lease of this.#leases) this.#drop(lease);
    const run = this.#whole(fetcher);
    // Whoever found out has the response open already.
    if (run !== undefined) this.#grant(fetcher, run.first, run.end, now);
  }

  /** How much a member is given at once. */
  #runBytes(fetcher: Fetcher): number {
    if (this.#fetchers.allowed < 2) return Infinity;
    const sharing = Math.min(this.#limit, this.#fetchers.allowed);
    const { rate } = fetcher;
    const bySpeed = rate === undefined ? FIRST_RUN : (rate * RUN_MS) / 1_000;
    const longest = Math.max(LONGEST_RUN, ((rate ?? 0) * QUICKEST_RUN_MS) / 1_000);
    const fair = this.#leases.openBytes / (2 * sharing);
    const shortest = Math.max(SHORTEST_RUN, this.#geometry.pieceSize);
    return Math.max(shortest, Math.min(longest, bySpeed, fair));
  }

  #nearlyDone(fetcher: Fetcher): boolean {
    for (const lease of this.#leases.of(fetcher.id)) {
      // What is left may be its last piece, which is small enough whatever its rate.
      if (lease.end - lease.next > 1 && this.#leftMs(lease) > NEARLY_DONE_MS) return false;
    }
    return true;
  }

  /** How long its holder will take for the rest, at the median rate when its own is not known. */
  #leftMs(lease: Run): number {
    const fetcher = this.#fetchers.get(lease.holder);
    return fetcher === undefined ? Infinity : this.#msFor(fetcher, this.#leases.left(lease));
  }

  /** This one would have the piece under way much sooner, though it has nothing of it; who fails would take it for ever. */
  #isSoonerAnew(lease: Run, by: Fetcher, now: number): boolean {
    if (by.slow || by.failures > 0) return false;
    const anew = this.#msFor(by, this.#geometry.length(lease.next));
    const left = this.#leases.lastByte(lease) - this.#reached(lease, now);
    return this.#msFor(this.#fetchers.get(lease.holder), left) > Math.max(ANEW_FACTOR * anew, ANEW_MS + anew);
  }

  #msFor(fetcher: Fetcher | undefined, bytes: number): number {
    // 1 MB/s while nothing is known at all: only compared with itself then.
    const rate = fetcher?.rate ?? this.#fetchers.medianRate() ?? 1_000_000;
    return rate === 0 ? Infinity : (bytes / rate) * 1_000;
  }
}
