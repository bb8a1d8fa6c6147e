import { IntegrityError, type Digest, type Repository } from "@p2p-mirror/shared";
import { Candidates, type Allowed, type Candidate } from "./candidates.ts";
import type { Crowd, FetchDeps } from "./fetch-deps.ts";
import { fetchRun } from "./fetch-run.ts";
import type { AtWork } from "./flight-progress.ts";
import { TooSlowError } from "./peer-client.ts";
import type { Run } from "./picker.ts";
import { SelfHelp } from "./self-help.ts";
import type { BlobSource, SourceFinder } from "./source.ts";
import type { Spool } from "./spool.ts";
import { SwarmFetches } from "./swarm-fetches.ts";

/** Sources at work at a time. */
const MAX_SOURCES = 4;
/**
 * When peers bring less than `SLOW_BYTES_PER_TICK` in so long, upstream joins them: slow is better than never, but not
 * good. Whoever was asked for a long run and brings no more than that leaves it to upstream, then.
 */
const TICK_MS = 3_000;
const SLOW_BYTES_PER_TICK = 512 * 1024;
/** A reader this far ahead of the run it waits for makes the source begin anew at its place. */
const FAR_BYTES = 64 * 1024 * 1024;

export interface FetchesOptions {
  readonly digest: Digest;
  readonly size: number;
  /** Where the first reader begins. */
  readonly start: number;
}

export interface FetchesDeps extends FetchDeps {
  /** Undefined: this node works alone. */
  readonly crowd?: Crowd | undefined;
  readonly spool: Spool;
  readonly finder: SourceFinder;
  /** Others are at work for this node, which can only wait: it is not yet time to give up. */
  readonly waits: () => void;
}

/** Its source goes on elsewhere in the blob. */
class Preempted extends Error {
  override readonly name = "Preempted";
}

interface Fetching {
  readonly source: BlobSource;
  readonly run: Run;
  readonly abort: AbortController;
  /** It is one piece that others should bring, and nobody had: bytes that had come by the swarm until then. */
  readonly theirs: number | undefined;
}

/** The requests of one flight that are under way, and who is asked next for what. */
export class Fetches {
  readonly candidates: Candidates;
  readonly #options: FetchesOptions;
  readonly #deps: FetchesDeps;
  readonly #fetching = new Set<Fetching>();
  #swarm: SwarmFetches | undefined;
  #cancelTick: (() => void) | undefined;
  #closed = false;
  #slow = false;
  #slowTicks = 0;
  readonly #selfHelp: SelfHelp;
  #absences = 0;
  /** Upstream ignores ranges. */
  #unranged = false;
  /** The piece the newest reader waits for. */
  #preferred: number;

  constructor(options: FetchesOptions, deps: FetchesDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#preferred = deps.pieces.geometry.at(options.start);
    this.#selfHelp = new SelfHelp(options, deps);
    const { crowd } = deps;
    this.candidates = new Candidates({
      ...deps,
      peers: (signal) => deps.finder.peers(options.digest, signal),
      named: (peer) => deps.finder.peer(peer, options.digest),
      found: (peer) => crowd?.member.holds(peer),
    });
    if (crowd !== undefined)
      this.#swarm = new SwarmFetches(options, { ...deps, ...crowd, candidates: this.candidates });
    this.#tick();
  }

  /** Another repository the blob may be fetched from at upstream. */
  addOrigin(repository: Repository): void {
    this.candidates.addUpstream(this.#deps.finder.upstream(repository, this.#options.digest));
  }

  get active(): number {
    return this.#fetching.size + (this.#swarm?.active ?? 0);
  }

  /** Something may still come by itself. */
  get hope(): boolean {
    return this.candidates.hope || this.#swarm?.hope === true;
  }

  /** This node is not let in by upstream, nor waits until it is. */
  get upstreamIsOut(): boolean {
    return !this.candidates.mayAskUpstream && (this.#swarm?.pausedMs ?? 0) === 0;
  }

  /** Who is at work. */
  get sources(): AtWork[] {
    const whole = [...this.#fetching].map(({ source: { kind, id } }) => ({ kind, id }));
    return [...whole, ...(this.#swarm?.sources ?? [])];
  }

  /** Puts sources to work as long as there are any, and work for them. */
  assign(patienceMs: () => number): void {
    const { spool } = this.#deps;
    // A window is filled in order, by one source.
    const { windowed } = spool;
    if (windowed) this.#leaveSwarm();
    const allowed = this.#assignSwarm(patienceMs);
    if (!windowed) this.#check(patienceMs);
    while (this.#fetching.size < (windowed ? 1 : MAX_SOURCES)) {
      const candidate = this.candidates.take(this.#slow, allowed);
      if (candidate === undefined) return;
      const run = this.#nextRun(candidate, windowed);
      if (run === undefined) {
        this.candidates.putBack(candidate);
        return;
      }
      this.#start(candidate, run, patienceMs);
    }
  }

  #start(candidate: Candidate, run: Run, patienceMs: () => number): void {
    const { pieces, crowd } = this.#deps;
    const { source } = candidate;
    const inTheirPlace =
      source.kind === "upstream" && this.#swarm?.alone === false && crowd?.member.rarity(run.first) === 0;
    const theirs = inTheirPlace ? this.#swarm?.received : undefined;
    const fetching = { source, run, abort: new AbortController(), theirs };
    this.#fetching.add(fetching);
    const before = pieces.received;
    void this.#fetch(fetching)
      .then(
        () => this.candidates.worked(candidate),
        (error: unknown) => {
          if (!this.#closed) this.#failed(candidate, fetching, error, pieces.received > before, patienceMs());
        },
      )
      .finally(() => {
        this.#fetching.delete(fetching);
        pieces.picker.release(run);
        this.#deps.changed();
      });
  }

  /** After a wrong blob: what others have and nobody is believed about, a piece at a time, this node's part of it. */
  #check(patienceMs: () => number): void {
    const { crowd, pieces } = this.#deps;
    const swarm = this.#swarm;
    if (crowd?.hashes.doubts !== true || swarm === undefined) return;
    if (crowd.recall()) this.#deps.changed();
    if (!swarm.settled || swarm.pausedMs > 0 || this.#unranged) return;
    for (const { source } of this.#fetching) if (source.kind === "upstream") return;
    const present = new Set<string>();
    for (const { peer, complete } of crowd.member.neighbours) if (!complete) present.add(peer.id);
    const piece = crowd.hashes
      .toCheck(present)
      .find((one) => crowd.member.rarity(one) > 0 && pieces.picker.isFree(one));
    const candidate = piece === undefined ? undefined : this.candidates.takeUpstream();
    if (piece === undefined || candidate === undefined) return;
    const run = pieces.picker.takeWithin(piece, piece + 1);
    if (run === undefined) this.candidates.putBack(candidate);
    else this.#start(candidate, run, patienceMs);
  }

  /**
   * Who helps itself at upstream although others should bring it takes a piece at a time, and not the one that all others
   * take: when upstream comes back after a while, all members do so in the same moment.
   */
  #nextRun({ source }: Candidate, windowed: boolean): Run | undefined {
    const { crowd, pieces } = this.#deps;
    const { picker, geometry } = pieces;
    if (crowd === undefined || source.kind === "peer" || this.#swarm?.alone !== false || this.#unranged)
      return picker.take(windowed ? 0 : this.#preferred);
    return picker.takeOne(Math.floor(crowd.random() * geometry.count));
  }

  /** In a swarm upstream is asked by those who have a lease, and pieces go round as soon as others want them, too. */
  #assignSwarm(patienceMs: () => number): Allowed {
    const swarm = this.#swarm;
    if (swarm === undefined) return { peers: true, upstream: true };
    const { crowded, absences } = swarm;
    // This process stood still, or its network did: others may have everything by now.
    if (absences > this.#absences) this.candidates.look(true);
    this.#absences = absences;
    // Whoever has the whole blob spares upstream.
    const due = this.candidates.lookedUp && (crowded || this.#slow || !this.candidates.hasPeers);
    // When all others are through, a member still gets what is left from them.
    const neighbours = crowded || !this.candidates.hasPeers;
    swarm.assign({ from: this.#preferred, upstream: due, neighbours, patienceMs });
    const { pieces } = this.#deps;
    const active = this.#fetching.size;
    const stuck = this.#selfHelp.isDue(swarm, {
      received: pieces.received,
      active,
      unranged: this.#unranged,
    });
    if (this.#selfHelp.waits) this.#deps.waits();
    this.#giveBack(swarm);
    const peers = !crowded || stuck;
    if (!peers) {
      for (const { source, abort } of this.#fetching)
        if (source.kind === "peer") abort.abort(new Preempted());
    }
    // Stuck beside one that has the whole: its hashes are not believed, after somebody else's were wrong. Its bytes may
    // be right still, which the digest tells.
    return { peers: swarm.settled && peers, upstream: swarm.alone || stuck };
  }

  /**
   * What this node fetches in the place of others is theirs again when they get on, as what comes from any of them shows, and
   * when it is to bring another piece for all: after a silence of upstream each of the crowd has such a request, all share the
   * uplink, and none gets on.
   */
  #giveBack(swarm: SwarmFetches): void {
    // Where upstream ignores ranges, what has come so far would come again, if it was not another's to bring.
    if (this.#unranged && !this.#selfHelp.waits) return;
    const all = swarm.due || this.#selfHelp.waits;
    for (const { run, abort, theirs } of this.#fetching) {
      if (theirs === undefined) continue;
      if (all || swarm.received > theirs || swarm.canBeHad(run.first)) abort.abort(new Preempted());
    }
  }

  /** Nothing can be stored, so nothing can be given either. */
  #leaveSwarm(): void {
    this.#swarm?.close();
    this.#swarm = undefined;
    void this.#deps.crowd?.member.leave();
  }

  /** A reader that resumes far ahead of what is being fetched would wait too long: its bytes come first. */
  prefer(offset: number): void {
    const { pieces, spool } = this.#deps;
    if (offset >= this.#options.size || spool.windowed) return;
    const piece = pieces.geometry.at(offset);
    const run = pieces.picker.farFrom(piece, FAR_BYTES);
    if (run === undefined) return;
    this.#preferred = piece;
    this.#swarm?.preempt(run);
    for (const fetching of this.#fetching) if (fetching.run === run) fetching.abort.abort(new Preempted());
  }

  close(): void {
    this.#closed = true;
    this.#cancelTick?.();
    this.#selfHelp.close();
    this.candidates.close();
    this.#swarm?.close();
    for (const { abort } of this.#fetching) abort.abort();
  }

  /** Looks from time to time whether what comes is worth waiting for. */
  #tick(): void {
    const { pieces, clock, changed } = this.#deps;
    const before = pieces.received;
    this.#cancelTick = clock.after(TICK_MS, () => {
      this.#slow = pieces.received - before < SLOW_BYTES_PER_TICK;
      this.#lookAgain();
      changed();
      this.#tick();
    });
  }

  /** Members that others have lost may have become complete meanwhile: whoever gets on badly looks for them, less and less often. */
  #lookAgain(): void {
    if (!this.#slow || this.#swarm === undefined) return;
    this.#slowTicks += 1;
    if (Number.isInteger(Math.log2(this.#slowTicks))) this.candidates.look();
  }

  async #fetch({ source, run, abort }: Fetching): Promise<void> {
    const { pieces, spool, clock } = this.#deps;
    const peer = source.kind === "peer" ? source : undefined;
    const end = (): number => pieces.geometry.end(run.end - 1);
    // A window goes at the pace of its reader.
    const floor =
      peer === undefined || spool.windowed
        ? undefined
        : { bytes: SLOW_BYTES_PER_TICK, ms: TICK_MS, applies: () => this.#slow };
    const start = pieces.filledTo(run.first);
    await fetchRun(
      source,
      { start, end: end() },
      this.#options.size,
      {
        end,
        accepted: (from) => {
          this.#deps.accepted(source.kind);
          if (from === start || this.#unranged) return;
          this.#unranged = true;
          this.#selfHelp.end();
          // A piece would cost all that is before it.
          if (this.#swarm?.alone === false) throw new Preempted();
        },
        arrived: (offset, chunk, recycle) => {
          if (pieces.arrived(offset, chunk, peer, recycle)) this.#deps.arrived(offset);
        },
        passed: () => this.#deps.written(source.kind, 0),
        lost: (offset, chunks) => pieces.lost(offset, chunks),
        write: async (offset, chunks) => {
          if (spool.windowed && !pieces.isFront(offset)) {
            pieces.lost(offset, chunks);
            throw new Preempted();
          }
          this.#deps.written(source.kind, await pieces.write(run, offset, chunks, peer));
        },
      },
      { abort, clock, alternatives: () => this.candidates.alternativesTo(source.kind), floor },
    );
  }

  #failed(
    candidate: Candidate,
    { source, abort }: Fetching,
    error: unknown,
    progressed: boolean,
    patienceMs: number,
  ): void {
    const { digest } = this.#options;
    const elsewhere = error instanceof Preempted || abort.signal.reason instanceof Preempted;
    if (elsewhere) return this.candidates.putBack(candidate);
    this.#deps.logger.debug({ err: error, digest, source: source.id }, "a source failed");
    // A size that differs from what a manifest said is no proof against the source: the manifest may be what is wrong.
    if (error instanceof IntegrityError && error.code === "DIGEST_MISMATCH") source.refuted();
    this.candidates.failed(candidate, error, {
      progressed,
      begun: this.#deps.pieces.received > 0,
      slow: abort.signal.reason instanceof TooSlowError,
      patienceMs,
    });
  }
}
