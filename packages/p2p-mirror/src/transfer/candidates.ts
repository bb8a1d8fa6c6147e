import { NotFoundError, SourceError, type Clock, type Digest, type Repository } from "@p2p-mirror/shared";
import type { BlobSource, SourceFinder } from "./source.ts";

/** How long a lookup may take before upstream is asked although peers may still be found. */
const LOOKUP_PATIENCE_MS = 1_000;
/** A peer without a free upload slot is asked again after this, and upstream only after `BUSY_PATIENCE_MS` of it. */
const BUSY_PAUSE_MS = 200;
const BUSY_PATIENCE_MS = 2_000;
/** Failures of upstream in a row, without a byte in between, before the flight gives up. */
const UPSTREAM_ATTEMPTS = 4;
const UPSTREAM_PAUSE_MS = 250;

export interface Candidate {
  readonly source: BlobSource;
  /** Not before this time (Clock.now). */
  notBefore: number;
  failures: number;
  busySince: number | undefined;
}

export interface CandidatesDeps {
  readonly finder: SourceFinder;
  readonly clock: Clock;
  /** Called when something changed: a peer was found, the lookup ended, a pause is over. */
  readonly changed: () => void;
}

/**
 * The sources of one flight and the order they are asked in: peers that hold the blob as they are found; upstream when
 * nobody was found in time or nobody found delivers. Sources that are working are not in here.
 */
export class Candidates {
  readonly errors: unknown[] = [];
  readonly #digest: Digest;
  readonly #deps: CandidatesDeps;
  readonly #known = new Set<string>();
  readonly #banned = new Set<string>();
  readonly #peers: Candidate[] = [];
  readonly #upstreams: Candidate[] = [];
  readonly #timers = new Set<() => void>();
  #lookup: AbortController | undefined;
  #lookupDone = false;
  #patienceOver = false;
  #working = 0;

  constructor(digest: Digest, deps: CandidatesDeps) {
    this.#digest = digest;
    this.#deps = deps;
  }

  /** Looks for holders, again or for the first time. Peers that failed before are given another chance. */
  look(): void {
    this.#lookup?.abort();
    const lookup = new AbortController();
    this.#lookup = lookup;
    this.#lookupDone = false;
    this.#patienceOver = false;
    this.#known.clear();
    for (const { source } of this.#peers) this.#known.add(source.id);
    this.#later(LOOKUP_PATIENCE_MS, () => {
      this.#patienceOver = true;
    });
    void this.#collect(lookup.signal);
  }

  addUpstream(repository: Repository): void {
    const source = this.#deps.finder.upstream(repository, this.#digest);
    if (this.#upstreams.some((one) => one.source.id === source.id) || this.#known.has(source.id)) return;
    this.#known.add(source.id);
    this.#upstreams.push({ source, notBefore: 0, failures: 0, busySince: undefined });
    this.#deps.changed();
  }

  addPeer(source: BlobSource): void {
    if (this.#known.has(source.id) || this.#banned.has(source.id)) return;
    this.#known.add(source.id);
    this.#peers.push({ source, notBefore: 0, failures: 0, busySince: undefined });
    this.#deps.changed();
  }

  /** The next source to use now, taken out of here until `worked` or `failed`; undefined: none at the moment. */
  take(): Candidate | undefined {
    const now = this.#deps.clock.now();
    const peer = this.#peers.findIndex((one) => one.notBefore <= now);
    if (peer !== -1) {
      this.#working += 1;
      return this.#peers.splice(peer, 1)[0];
    }
    const waitForOthers =
      this.#working > 0 ||
      (!this.#lookupDone && !this.#patienceOver) ||
      this.#peers.some((one) => now - (one.busySince ?? now) < BUSY_PATIENCE_MS);
    if (waitForOthers) return undefined;
    const upstream = this.#upstreams.findIndex((one) => one.notBefore <= now);
    if (upstream === -1) return undefined;
    this.#working += 1;
    return this.#upstreams.splice(upstream, 1)[0];
  }

  /** There was nothing to ask it for. */
  putBack(candidate: Candidate): void {
    this.#working -= 1;
    if (this.#banned.has(candidate.source.id)) return;
    if (candidate.source.kind === "peer") this.#peers.push(candidate);
    else this.#upstreams.push(candidate);
  }

  /** It delivered what it was asked for, and may be asked for more. */
  worked(candidate: Candidate): void {
    candidate.failures = 0;
    candidate.busySince = undefined;
    this.putBack(candidate);
  }

  /** `progressed`: it delivered some bytes first. `patienceMs`: how long the flight would wait for it. */
  failed(candidate: Candidate, error: unknown, progressed: boolean, patienceMs: number): void {
    this.errors.push(error);
    if (this.errors.length > 16) this.errors.shift();
    const now = this.#deps.clock.now();
    if (candidate.source.kind === "peer") {
      if (error instanceof SourceError && error.code === "BUSY") {
        candidate.busySince ??= now;
        candidate.notBefore = now + BUSY_PAUSE_MS;
        this.putBack(candidate);
        this.#later(BUSY_PAUSE_MS);
      } else {
        this.#working -= 1;
      }
      return;
    }
    candidate.failures = progressed ? 1 : candidate.failures + 1;
    const pause = pauseAfter(error, candidate.failures, progressed);
    if (pause === undefined || pause > patienceMs) {
      this.#working -= 1;
      return;
    }
    candidate.notBefore = now + pause;
    this.putBack(candidate);
    this.#later(pause);
  }

  /** It is never asked again in this flight. */
  drop(source: BlobSource): void {
    const index = this.#peers.findIndex((one) => one.source.id === source.id);
    if (index !== -1) this.#peers.splice(index, 1);
    this.#banned.add(source.id);
  }

  /** False when nothing that could still happen by itself would bring a source. */
  get hope(): boolean {
    return this.#working > 0 || !this.#lookupDone || this.#peers.length > 0 || this.#upstreams.length > 0;
  }

  /** Everybody who was asked said no: nobody has it, or nobody gives it. */
  get refused(): boolean {
    return this.errors.every(
      (error) => error instanceof NotFoundError || (error instanceof SourceError && error.code === "DENIED"),
    );
  }

  /** True while a source other than the ones at work could take over. */
  get alternatives(): boolean {
    return [...this.#peers, ...this.#upstreams].some(({ source }) => source.available);
  }

  close(): void {
    this.#lookup?.abort();
    for (const cancel of this.#timers) cancel();
    this.#timers.clear();
  }

  async #collect(signal: AbortSignal): Promise<void> {
    try {
      for await (const peer of this.#deps.finder.peers(this.#digest, signal)) {
        if (signal.aborted) return;
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

/** Milliseconds until upstream may be asked again after this failure; undefined: never. */
function pauseAfter(error: unknown, failures: number, progressed: boolean): number | undefined {
  if (!(error instanceof SourceError) || !error.temporary) return undefined;
  if (error.retryAfterMs !== undefined) return error.retryAfterMs;
  // Before the first byte the upstream client has tried again by itself already.
  if (!progressed && error.code !== "CUT" && error.code !== "STALLED" && failures === 1) return undefined;
  return failures >= UPSTREAM_ATTEMPTS ? undefined : UPSTREAM_PAUSE_MS * 2 ** (failures - 1);
}
