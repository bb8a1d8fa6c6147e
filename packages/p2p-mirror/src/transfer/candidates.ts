import { NotFoundError, SourceError, type Clock } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import { LOOKUP_PATIENCE_MS } from "./patient-lookup.ts";
import { BusyError } from "./peer-client.ts";
import type { BlobSource, Source } from "./source.ts";

/** A peer without a free upload slot is asked again after this, and upstream only after `BUSY_PATIENCE_MS` of it. */
const BUSY_PAUSE_MS = 200;
const BUSY_PATIENCE_MS = 2_000;
/** Peers that busy ones name may be as many; inventing more must not keep anybody from upstream. */
const MAX_NAMED = 16;
/** Failures of upstream in a row, without a byte in between, before a flight that has no byte gives it up. */
const UPSTREAM_ATTEMPTS = 4;
const UPSTREAM_PAUSE_MS = 250;
/** Between two tries, at most, of a flight that has bytes already and so does not give up. */
const UPSTREAM_LONGEST_PAUSE_MS = 1_000;

export interface Candidate<S extends Source = BlobSource> {
  readonly source: S;
  /** Not before this time (Clock.now). */
  notBefore: number;
  failures: number;
  busySince: number | undefined;
  /** It was so slow that upstream took its place, or may have lied: it is asked when nobody else can be, and alone. */
  slow: boolean;
}

export interface FailureDetail {
  /** It delivered some bytes first. */
  readonly progressed: boolean;
  /** The flight has bytes, from whomever: its reader has waited for them and cannot do better elsewhere. */
  readonly begun: boolean;
  /** It brought next to nothing while another one could take over. */
  readonly slow?: boolean;
  /** How long the flight would wait for it. */
  readonly patienceMs: number;
}

/** Which kinds of sources may be put to work: in a swarm others decide who asks upstream, and peers are asked piece by piece. */
export interface Allowed {
  readonly peers: boolean;
  readonly upstream: boolean;
}

export interface CandidatesDeps<S extends Source = BlobSource> {
  /** Complete holders, as they become known; ends when the lookup does. */
  readonly peers: (signal: AbortSignal) => AsyncIterable<S>;
  /** A peer that a busy one has named; undefined: it is not to be asked. */
  readonly named: (peer: Peer) => S | undefined;
  readonly clock: Clock;
  /** A peer with the whole blob was found. */
  readonly found?: ((peer: Peer) => void) | undefined;
  /** Called when something changed: a peer was found, the lookup ended, a pause is over. */
  readonly changed: () => void;
}

/**
 * The sources of one object and the order they are asked in: peers that hold it as they are found or named by busy ones;
 * upstream when nobody was found in time or nobody found delivers. Sources that are working are not in here.
 */
export class Candidates<S extends Source = BlobSource> {
  readonly errors: unknown[] = [];
  readonly #deps: CandidatesDeps<S>;
  readonly #known = new Set<string>();
  readonly #banned = new Set<string>();
  readonly #peers: Candidate<S>[] = [];
  readonly #upstreams: Candidate<S>[] = [];
  /** Upstreams that failed in a way that passes; a flight with bytes asks them again. */
  readonly #resting: Candidate<S>[] = [];
  readonly #working = new Set<Candidate<S>>();
  readonly #timers = new Set<() => void>();
  #lookup: AbortController | undefined;
  #lookupDone = false;
  #patienceOver = false;
  #lookedUp = false;
  #namings = 0;

  constructor(deps: CandidatesDeps<S>) {
    this.#deps = deps;
  }

  /**
   * Looks for holders, again or for the first time. Sources that failed before are given another chance. `anew`: what was
   * found before counts for nothing.
   */
  look(anew = false): void {
    if (anew) this.#lookedUp = false;
    this.#lookup?.abort();
    const lookup = new AbortController();
    this.#lookup = lookup;
    this.#lookupDone = false;
    this.#patienceOver = false;
    this.#upstreams.push(...this.#resting.splice(0));
    this.#known.clear();
    for (const { source } of [...this.#peers, ...this.#upstreams, ...this.#working])
      this.#known.add(source.id);
    this.#later(LOOKUP_PATIENCE_MS, () => {
      this.#patienceOver = true;
    });
    void this.#collect(lookup.signal);
  }

  addUpstream(source: S): void {
    if (this.#known.has(source.id)) return;
    this.#known.add(source.id);
    this.#upstreams.push({ source, notBefore: 0, failures: 0, busySince: undefined, slow: false });
    this.#deps.changed();
  }

  addPeer(source: S): void {
    if (this.#known.has(source.id)) return;
    this.#add(source, this.#peers.length);
  }

  /**
   * It says itself that it has got the object by now: it is the next one to be asked, even if it failed before. False: it
   * is being asked, or will be.
   */
  preferPeer(source: S): boolean {
    for (const one of [...this.#peers, ...this.#working]) if (one.source.id === source.id) return false;
    return this.#add(source, 0);
  }

  /**
   * The next source to use now, taken out of here until `worked` or `failed`; undefined: none at the moment. `slow`: those
   * at work bring next to nothing, so that upstream may join them.
   */
  take(slow: boolean, allowed: Allowed = { peers: true, upstream: true }): Candidate<S> | undefined {
    const now = this.#deps.clock.now();
    const last = this.#working.size === 0 && !this.#upstreams.some((one) => one.notBefore <= now);
    const peer = !allowed.peers
      ? -1
      : this.#peers.findIndex((one) => one.notBefore <= now && (last || !one.slow));
    if (peer !== -1) return this.#setToWork(this.#peers, peer);
    const waitForOthers =
      this.#working.size > 0 ||
      (!this.#lookupDone && !this.#patienceOver) ||
      this.#peers.some((one) => !one.slow && now - (one.busySince ?? now) < BUSY_PATIENCE_MS);
    const upstreamWorks = [...this.#working].some(({ source }) => source.kind === "upstream");
    if (!allowed.upstream || (slow ? upstreamWorks : waitForOthers)) return undefined;
    const upstream = this.#upstreams.findIndex((one) => one.notBefore <= now);
    return upstream === -1 ? undefined : this.#setToWork(this.#upstreams, upstream);
  }

  /** Upstream, for what this node alone is to bring; as `take`. */
  takeUpstream(): Candidate<S> | undefined {
    const now = this.#deps.clock.now();
    const upstream = this.#upstreams.findIndex((one) => one.notBefore <= now);
    return upstream === -1 ? undefined : this.#setToWork(this.#upstreams, upstream);
  }

  /** It is known who has the whole blob, as far as it can be known soon. */
  get lookedUp(): boolean {
    // Once it was: looking again later holds nothing up.
    this.#lookedUp ||= this.#lookupDone || this.#patienceOver;
    return this.#lookedUp;
  }

  /** A peer with the whole blob is at work, or will be; one that is too slow does not count. */
  get hasPeers(): boolean {
    return (
      this.#peers.some(({ slow }) => !slow) ||
      [...this.#working].some(({ source, slow }) => source.kind === "peer" && !slow)
    );
  }

  /** Whoever may have it, at work or not, as far as is known; without those that failed. */
  get sources(): S[] {
    return [...this.#upstreams, ...this.#working, ...this.#peers].map(({ source }) => source);
  }

  /** False when no upstream would be asked (again) by this flight. */
  get mayAskUpstream(): boolean {
    return this.#upstreams.length > 0 || [...this.#working].some(({ source }) => source.kind === "upstream");
  }

  /** There was nothing to ask it for. */
  putBack(candidate: Candidate<S>): void {
    this.#working.delete(candidate);
    if (this.#banned.has(candidate.source.id)) return;
    if (candidate.source.kind === "upstream") this.#upstreams.push(candidate);
    // One that works alone goes on.
    else if (candidate.slow) this.#peers.unshift(candidate);
    else this.#peers.push(candidate);
  }

  /** It delivered what it was asked for, and may be asked for more. */
  worked(candidate: Candidate<S>): void {
    candidate.failures = 0;
    candidate.busySince = undefined;
    this.putBack(candidate);
  }

  failed(candidate: Candidate<S>, error: unknown, detail: FailureDetail): void {
    const { progressed, begun, slow = false, patienceMs } = detail;
    this.errors.push(error);
    if (this.errors.length > 16) this.errors.shift();
    const now = this.#deps.clock.now();
    if (candidate.source.kind === "peer") {
      if (error instanceof BusyError) this.#addNamed(error.tryInstead);
      if (error instanceof SourceError && error.code === "BUSY") {
        candidate.busySince ??= now;
        candidate.notBefore = now + BUSY_PAUSE_MS;
        this.putBack(candidate);
        this.#later(BUSY_PAUSE_MS);
      } else if (slow) {
        candidate.slow = true;
        this.putBack(candidate);
      } else {
        this.#working.delete(candidate);
      }
      return;
    }
    candidate.failures = progressed ? 1 : candidate.failures + 1;
    const pause = pauseAfter(error, candidate.failures, progressed, begun);
    if (pause === undefined || pause > patienceMs) {
      this.#working.delete(candidate);
      if (pause === undefined && isTemporary(error)) this.#resting.push(candidate);
      return;
    }
    candidate.notBefore = now + pause;
    this.putBack(candidate);
    // Who could not deliver before may be back by then, and others may have got it meanwhile.
    this.#later(pause, begun ? () => this.look() : undefined);
  }

  /** It may be one that lies: others come first, and then it brings all there is to bring, alone. */
  suspect(source: S): void {
    for (const one of [...this.#peers, ...this.#working]) if (one.source.id === source.id) one.slow = true;
  }

  /** It is never asked again in this flight. */
  drop(source: S): void {
    const index = this.#peers.findIndex((one) => one.source.id === source.id);
    if (index !== -1) this.#peers.splice(index, 1);
    this.#banned.add(source.id);
  }

  /** False when nothing that could still happen by itself would bring a source. */
  get hope(): boolean {
    return (
      this.#working.size > 0 || !this.#lookupDone || this.#peers.length > 0 || this.#upstreams.length > 0
    );
  }

  /** Everybody who was asked said no: nobody has it, or nobody gives it. */
  get refused(): boolean {
    return this.errors.every(
      (error) => error instanceof NotFoundError || (error instanceof SourceError && error.code === "DENIED"),
    );
  }

  /** True while a source that is not at work could take over from one of that kind: from upstream only a peer does. */
  alternativesTo(kind: Source["kind"]): boolean {
    const now = this.#deps.clock.now();
    const others = kind === "upstream" ? this.#peers : [...this.#peers, ...this.#upstreams];
    return others.some(({ source, notBefore, slow }) => source.available && notBefore <= now && !slow);
  }

  close(): void {
    this.#lookup?.abort();
    for (const cancel of this.#timers) cancel();
    this.#timers.clear();
  }

  #setToWork(from: Candidate<S>[], index: number): Candidate<S> | undefined {
    const [candidate] = from.splice(index, 1);
    if (candidate !== undefined) this.#working.add(candidate);
    return candidate;
  }

  #add(source: S, place: number): boolean {
    if (this.#banned.has(source.id)) return false;
    this.#known.add(source.id);
    this.#peers.splice(place, 0, { source, notBefore: 0, failures: 0, busySince: undefined, slow: false });
    this.#deps.changed();
    return true;
  }

  #addNamed(peers: readonly Peer[]): void {
    for (const peer of peers.slice(0, MAX_NAMED - this.#namings)) {
      this.#namings += 1;
      const source = this.#deps.named(peer);
      if (source !== undefined) this.addPeer(source);
    }
  }

  async #collect(signal: AbortSignal): Promise<void> {
    try {
      for await (const peer of this.#deps.peers(signal)) {
        if (signal.aborted) return;
        if (peer.peer !== undefined && peer.guessed !== true && !this.#banned.has(peer.id))
          this.#deps.found?.(peer.peer);
        this.addPeer(peer);
      }
    } catch (error) {
      if (!signal.aborted) this.errors.push(error);
    } finally {
      if (!signal.aborted) {
        this.#lookupDone = true;
        this.#deps.changed();
      }
    }
  }

  #later(ms: number, then?: () => void): void {
    const cancel = this.#deps.clock.after(ms, () => {
      this.#timers.delete(cancel);
      then?.();
      this.#deps.changed();
    });
    this.#timers.add(cancel);
  }
}

const isTemporary = (error: unknown): error is SourceError => error instanceof SourceError && error.temporary;

/** Milliseconds until upstream may be asked again after this failure; undefined: never. */
function pauseAfter(
  error: unknown,
  failures: number,
  progressed: boolean,
  begun: boolean,
): number | undefined {
  if (!isTemporary(error)) return undefined;
  if (error.retryAfterMs !== undefined) return error.retryAfterMs;
  const pause = Math.min(UPSTREAM_LONGEST_PAUSE_MS, UPSTREAM_PAUSE_MS * 2 ** Math.min(failures - 1, 10));
  if (begun) return pause;
  // Before the first byte the upstream client has tried again by itself already.
  if (!progressed && error.code !== "CUT" && error.code !== "STALLED" && failures === 1) return undefined;
  return failures >= UPSTREAM_ATTEMPTS ? undefined : pause;
}
