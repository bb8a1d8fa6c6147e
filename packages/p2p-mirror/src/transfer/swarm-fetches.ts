import {
  IntegrityError,
  NotFoundError,
  SourceError,
  type Clock,
  type Digest,
  type Logger,
} from "@p2p-mirror/shared";
import type { HandBackReason, KnownHashes, Lease, Neighbour, SwarmMember } from "../swarm/swarm.ts";
import type { Candidate, Candidates } from "./candidates.ts";
import { fetchPiece, type AskForPiece } from "./fetch-piece.ts";
import { fetchRun } from "./fetch-run.ts";
import type { FlightPieces } from "./flight-pieces.ts";
import { BusyError } from "./peer-client.ts";
import type { Run } from "./picker.ts";
import { choosePiece } from "./piece-choice.ts";
import type { BlobSource } from "./source.ts";

/** Neighbours asked at a time, and pieces asked of each: enough that the next piece is on its way when one is there. */
const MAX_NEIGHBOURS_ASKED = 6;
const PIECES_EACH = 2;
/** A neighbour that is silent for so long loses the piece. */
const STALL_MS = 1_500;
const FIRST_BYTE_MS = 2_000;
/** After "busy", a connection that broke, or a piece it does not have after all, a neighbour is left alone for so long. */
const BUSY_PAUSE_MS = 100;
const FAULT_PAUSE_MS = 1_000;
/** Pieces with another hash than the signed one: the first may be the network's fault. */
const MAX_WRONG = 2;
/** Upstream may let in others who come in the same moment: nobody is sent away before. */
const COMPANY_MS = 300;

export interface SwarmFetchesOptions {
  readonly digest: Digest;
  readonly size: number;
}

export interface SwarmFetchesDeps {
  readonly member: SwarmMember;
  readonly hashes: KnownHashes;
  readonly ask: AskForPiece;
  readonly candidates: Candidates;
  readonly pieces: FlightPieces;
  readonly clock: Clock;
  readonly random: () => number;
  readonly logger: Logger;
  readonly accepted: (kind: BlobSource["kind"]) => void;
  readonly arrived: (offset: number) => void;
  readonly written: (kind: BlobSource["kind"], bytes: number) => void;
  readonly changed: () => void;
}

/** Its work is another's now, or goes on elsewhere. */
class Reassigned extends Error {
  override readonly name = "Reassigned";
}

interface Working {
  readonly run: Run;
  readonly abort: AbortController;
  readonly source: string;
}

/** What a flight does as a member of the swarm: fetches its leases from upstream, and pieces from its neighbours. */
export class SwarmFetches {
  readonly #options: SwarmFetchesOptions;
  readonly #deps: SwarmFetchesDeps;
  readonly #leases = new Map<number, Working>();
  readonly #asked = new Map<Working, string>();
  readonly #notBefore = new Map<string, number>();
  readonly #wrong = new Map<string, number>();
  readonly #timers = new Set<() => void>();
  #unranged = false;
  #closed = false;

  constructor(options: SwarmFetchesOptions, deps: SwarmFetchesDeps) {
    this.#options = options;
    this.#deps = deps;
    // While this runs there is hope.
    this.#later(COMPANY_MS);
    void this.#follow();
  }

  get active(): number {
    return this.#leases.size + this.#asked.size;
  }

  /** Who is at work. */
  get sources(): string[] {
    return [...[...this.#leases.values()].map(({ source }) => source), ...new Set(this.#asked.values())];
  }

  /** It is known who coordinates, or that nobody does. */
  get settled(): boolean {
    return this.#deps.member.alone || this.#deps.member.coordinator !== undefined;
  }

  /** Upstream wants to be left alone for so long. */
  get pausedMs(): number {
    return this.#deps.member.pausedMs;
  }

  get alone(): boolean {
    return this.#deps.member.alone;
  }

  /** Others are fetching it now, too: then pieces go round, and whole runs would be a waste. */
  get crowded(): boolean {
    const { count } = this.#deps.pieces.geometry;
    return this.#deps.member.neighbours.some((neighbour) => {
      for (let piece = 0; piece < count; piece += 1) if (!neighbour.has(piece)) return true;
      return false;
    });
  }

  /** Somebody may still bring something by itself. */
  get hope(): boolean {
    const { member, pieces, candidates } = this.#deps;
    if (!this.settled || this.active > 0 || this.#timers.size > 0) return true;
    const others = member.fetchers - (candidates.mayAskUpstream ? 1 : 0);
    if (others > 0 && member.neighbours.length > 0) return true;
    for (let piece = 0; piece < pieces.geometry.count; piece += 1) {
      if (!pieces.isDone(piece) && member.rarity(piece) > 0) return true;
    }
    return !member.alone && candidates.mayAskUpstream;
  }

  /** `from`: the piece the newest reader waits for; `upstream`: this node may ask it now, if it has a lease. */
  assign(from: number, upstream: boolean): void {
    if (this.#closed) return;
    this.#endLost();
    if (upstream) for (const lease of this.#deps.member.leases) this.#fetchLease(lease);
    if (this.crowded) this.#askNeighbours(from);
  }

  close(): void {
    this.#closed = true;
    for (const cancel of this.#timers) cancel();
    for (const { abort } of [...this.#leases.values(), ...this.#asked.keys()]) abort.abort();
  }

  async #follow(): Promise<void> {
    while (!this.#closed) {
      await this.#deps.member.change;
      this.#deps.changed();
    }
  }

  #endLost(): void {
    const held = new Set(this.#deps.member.leases.map(({ id }) => id));
    for (const [id, { abort }] of this.#leases) if (!held.has(id)) abort.abort(new Reassigned());
  }

  #lease(id: number): Lease | undefined {
    return this.#deps.member.leases.find((lease) => lease.id === id);
  }

  #fetchLease(lease: Lease): void {
    const { candidates, member, pieces } = this.#deps;
    if (this.#leases.has(lease.id)) return;
    if (!candidates.mayAskUpstream) return member.handBack(lease, { kind: "unauthorized" });
    const candidate = candidates.takeUpstream();
    if (candidate === undefined) return;
    const run = pieces.picker.takeWithin(lease.first, lease.end);
    if (run === undefined) return candidates.putBack(candidate);
    const working = { run, abort: new AbortController(), source: candidate.source.id };
    this.#leases.set(lease.id, working);
    const before = pieces.received;
    void this.#bringLease(lease, candidate, working)
      .then(
        () => candidates.worked(candidate),
        (error: unknown) => {
          if (!this.#closed) this.#leaseFailed(lease.id, candidate, working, error, pieces.received > before);
        },
      )
      .finally(() => {
        this.#leases.delete(lease.id);
        pieces.picker.release(run);
        this.#deps.changed();
      });
  }

  async #bringLease({ id }: Lease, { source }: Candidate, { run, abort }: Working): Promise<void> {
    const { pieces, clock, member } = this.#deps;
    const start = pieces.filledTo(run.first);
    // Its end moves down when others take a part.
    const end = (): number => pieces.geometry.end(Math.min(run.end, this.#lease(id)?.end ?? run.end) - 1);
    await fetchRun(
      source,
      { start, end: end() },
      this.#options.size,
      {
        end,
        accepted: (from) => {
          this.#deps.accepted("upstream");
          if (from === start || this.#unranged) return;
          // It streams from the beginning: that is one node's work.
          this.#unranged = true;
          const lease = this.#lease(id);
          if (lease !== undefined) member.handBack(lease, { kind: "unranged" });
          throw new Reassigned();
        },
        arrived: (offset, chunk, recycle) => {
          if (pieces.arrived(offset, chunk, undefined, recycle)) this.#deps.arrived(offset);
        },
        write: async (offset, chunks) => {
          const bytes = await pieces.write(run, offset, chunks, undefined);
          const lease = this.#lease(id);
          if (lease !== undefined) member.received(lease, bytes);
          this.#deps.written("upstream", bytes);
        },
      },
      // Who is too slow loses the lease: that is the coordinator's to judge.
      { abort, clock, alternatives: () => false },
    );
  }

  #leaseFailed(
    id: number,
    candidate: Candidate,
    { abort }: Working,
    error: unknown,
    progressed: boolean,
  ): void {
    const { candidates, member, logger } = this.#deps;
    if (error instanceof Reassigned || abort.signal.reason instanceof Reassigned) {
      return candidates.putBack(candidate);
    }
    logger.debug({ err: error, digest: this.#options.digest, source: candidate.source.id }, "a lease failed");
    const begun = this.#deps.pieces.received > 0;
    candidates.failed(candidate, error, { progressed, begun, patienceMs: Infinity });
    const lease = this.#lease(id);
    if (lease !== undefined) member.handBack(lease, handBackReason(error));
  }

  #askNeighbours(from: number): void {
    const { member, pieces, random, clock } = this.#deps;
    const now = clock.now();
    const options = {
      picker: pieces.picker,
      count: pieces.geometry.count,
      member,
      random,
      from,
      excluded: (neighbour: Neighbour, piece: number): boolean =>
        (this.#notBefore.get(`${neighbour.peer.id} ${piece}`) ?? 0) > now ||
        member.leases.some((lease) => piece >= lease.first && piece < lease.end),
    };
    // One piece of each before a second of any: the load is spread.
    for (let round = 1; round <= PIECES_EACH; round += 1) {
      for (const neighbour of member.neighbours) {
        const { id } = neighbour.peer;
        const asked = [...this.#asked.values()];
        const ofThis = asked.filter((one) => one === id).length;
        if (ofThis >= round || (ofThis === 0 && new Set(asked).size >= MAX_NEIGHBOURS_ASKED)) continue;
        if ((this.#notBefore.get(id) ?? 0) > now || (this.#wrong.get(id) ?? 0) >= MAX_WRONG) continue;
        const piece = choosePiece(neighbour, options);
        if (piece !== undefined) this.#ask(neighbour, piece);
      }
    }
  }

  #ask({ peer }: Neighbour, piece: number): void {
    const { pieces } = this.#deps;
    const run = pieces.picker.takeWithin(piece, piece + 1);
    if (run === undefined) return;
    const working = { run, abort: new AbortController(), source: peer.id };
    this.#asked.set(working, peer.id);
    const length = pieces.geometry.end(piece) - pieces.geometry.start(piece);
    const options = { signal: working.abort.signal, stallMs: STALL_MS, firstByteMs: FIRST_BYTE_MS };
    const request = { size: this.#options.size, piece, length };
    const deps = { ...this.#deps, accepted: () => this.#deps.accepted("peer") };
    void fetchPiece(peer, this.#options.digest, request, options, deps)
      .then(
        (sha256) => this.#taken(piece, sha256, length),
        (error: unknown) => {
          if (!this.#closed) this.#askFailed(peer.id, piece, error);
        },
      )
      .finally(() => {
        this.#asked.delete(working);
        pieces.picker.release(run);
        this.#deps.changed();
      });
  }

  #taken(piece: number, sha256: Buffer, length: number): void {
    this.#deps.member.have(piece, sha256, false);
    this.#deps.written("peer", length);
  }

  #askFailed(id: string, piece: number, error: unknown): void {
    const { member, logger } = this.#deps;
    logger.debug({ err: error, digest: this.#options.digest, peer: id, piece }, "a neighbour failed");
    if (error instanceof BusyError) return this.#pause(id, BUSY_PAUSE_MS);
    if (error instanceof NotFoundError) return this.#pause(`${id} ${piece}`, FAULT_PAUSE_MS);
    let useless =
      error instanceof SourceError && (error.code === "UNREACHABLE" || error.code === "NO_FIRST_BYTE");
    if (error instanceof IntegrityError) {
      const wrong = (this.#wrong.get(id) ?? 0) + 1;
      this.#wrong.set(id, wrong);
      useless = wrong >= MAX_WRONG;
    }
    this.#pause(error instanceof IntegrityError ? `${id} ${piece}` : id, FAULT_PAUSE_MS);
    const neighbour = member.neighbours.find(({ peer }) => peer.id === id);
    if (useless && neighbour !== undefined) member.unreachable(neighbour.peer);
  }

  #pause(key: string, ms: number): void {
    this.#notBefore.set(key, this.#deps.clock.now() + ms);
    this.#later(ms);
  }

  #later(ms: number): void {
    const cancel = this.#deps.clock.after(ms, () => {
      this.#timers.delete(cancel);
      this.#deps.changed();
    });
    this.#timers.add(cancel);
  }
}

function handBackReason(error: unknown): HandBackReason {
  if (error instanceof NotFoundError) return { kind: "unauthorized" };
  if (!(error instanceof SourceError)) return { kind: "failed" };
  if (error.code === "DENIED") return { kind: "unauthorized" };
  return error.retryAfterMs === undefined
    ? { kind: "failed" }
    : { kind: "rate-limited", retryAfterMs: error.retryAfterMs };
}
