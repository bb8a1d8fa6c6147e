import type { Digest } from "@p2p-mirror/shared";
import { TIMES } from "../swarm/times.ts";
import type { AtWork } from "./flight-progress.ts";
import { Company } from "./company.ts";
import { LeaseFetches, type LeaseFetchesDeps } from "./lease-fetches.ts";
import type { Run } from "./picker.ts";
import { PieceFetches, type PieceFetchesDeps } from "./piece-fetches.ts";

/** A member without a lease hears so often of what others bring; the rest is for a busy machine. */
const HEARD_WITHIN_MS = TIMES.reportSeldom + 1_000;

export interface SwarmWork {
  /** The piece the newest reader waits for. */
  readonly from: number;
  /** This node may ask upstream now for what it has leased. */
  readonly upstream: boolean;
  /** Pieces are asked of neighbours, rather than runs of those who have everything. */
  readonly neighbours: boolean;
  /** How long the flight would wait for a source. */
  readonly patienceMs: () => number;
}

export type SwarmFetchesDeps = LeaseFetchesDeps & PieceFetchesDeps;

/** What a flight does as a member of the swarm: fetches its leases from upstream, and pieces from its neighbours. */
export class SwarmFetches {
  readonly #deps: SwarmFetchesDeps;
  readonly #leases: LeaseFetches;
  readonly #pieces: PieceFetches;
  /** Upstream may let in others who come in the same moment: nobody is sent away before. */
  readonly #company: Company;
  /** Bytes that came by leases and from neighbours. */
  received = 0;
  #brought = 0;
  #broughtAt = -Infinity;
  #closed = false;

  constructor(options: { readonly digest: Digest; readonly size: number }, deps: SwarmFetchesDeps) {
    this.#deps = deps;
    const counting: SwarmFetchesDeps = {
      ...deps,
      written: (kind, bytes) => {
        this.received += bytes;
        deps.written(kind, bytes);
      },
    };
    this.#leases = new LeaseFetches(options, counting);
    this.#pieces = new PieceFetches(options, counting);
    this.#company = new Company(deps.clock, () => deps.changed());
    void this.#follow();
  }

  get active(): number {
    return this.#leases.active + this.#pieces.active;
  }

  /** Who is at work. */
  get sources(): AtWork[] {
    return [
      ...this.#leases.sources.map((id) => ({ kind: "upstream" as const, id })),
      ...this.#pieces.sources.map((id) => ({ kind: "peer" as const, id })),
    ];
  }

  /** It is known who coordinates, or that nobody does. */
  get settled(): boolean {
    return this.#deps.member.alone || this.#deps.member.coordinator !== undefined;
  }

  /** Upstream wants to be left alone for so long. */
  get pausedMs(): number {
    return this.#deps.member.pausedMs;
  }

  get absences(): number {
    return this.#deps.member.absences;
  }

  get alone(): boolean {
    return this.#deps.member.alone;
  }

  /** It is up to this node to bring something, as soon as upstream lets it. */
  get due(): boolean {
    return this.#deps.member.leases.length > 0 && this.#deps.candidates.mayAskUpstream;
  }

  /** Others are fetching it now, too: then pieces go round, and whole runs would be a waste. */
  get crowded(): boolean {
    return this.#deps.member.neighbours.some(({ complete }) => !complete);
  }

  /**
   * Members bring something from upstream, and nobody has a piece yet that this node could have: on a slow uplink that many
   * share it may be so for many seconds. Without a neighbour nothing of theirs would come here.
   */
  get waitsForOthers(): boolean {
    const { member, clock } = this.#deps;
    const atWork = clock.now() - this.#broughtAt < HEARD_WITHIN_MS;
    return atWork && member.neighbours.length > 0 && !this.#anyCanBeHad();
  }

  /** A neighbour has it. */
  canBeHad(piece: number): boolean {
    return this.#deps.member.rarity(piece) > 0;
  }

  #anyCanBeHad(): boolean {
    const { pieces } = this.#deps;
    for (let piece = 0; piece < pieces.geometry.count; piece += 1) {
      if (!pieces.isDone(piece) && this.canBeHad(piece)) return true;
    }
    return false;
  }

  /** A piece that could be had is left to another node for a moment, which gives it on. */
  get takesTurns(): boolean {
    return this.#pieces.takesTurns;
  }

  /** Somebody may still bring something by itself. */
  get hope(): boolean {
    const { member, candidates } = this.#deps;
    if (!this.settled || this.active > 0 || this.#pieces.waiting || this.#company.expected) return true;
    const others = member.fetchers - (candidates.mayAskUpstream ? 1 : 0);
    if (others > 0 && member.neighbours.length > 0) return true;
    return this.#anyCanBeHad() || (!member.alone && candidates.mayAskUpstream);
  }

  /** Puts leases and neighbours to work. */
  assign(work: SwarmWork): void {
    if (this.#closed) return;
    this.#leases.endLost();
    if (work.upstream) this.#leases.fetchAll(work.from, work.patienceMs);
    if (work.neighbours) this.#pieces.askAll(work.from);
    else this.#pieces.rest();
  }

  /** A reader waits for a piece far beyond what this run brings: the lease is kept, its bytes come in another order. */
  preempt(run: Run): void {
    this.#leases.preempt(run);
  }

  close(): void {
    this.#closed = true;
    this.#company.close();
    this.#leases.close();
    this.#pieces.close();
  }

  async #follow(): Promise<void> {
    const { member } = this.#deps;
    while (!this.#closed) {
      const { change } = member;
      if (member.brought !== this.#brought) this.#broughtAt = this.#deps.clock.now();
      this.#brought = member.brought;
      if (this.settled) this.#company.here(member.neighbours.map(({ peer }) => peer.id));
      await change;
      this.#deps.changed();
    }
  }
}
