import type { Clock } from "@p2p-mirror/shared";
import type { PieceGeometry, PieceMap } from "../transfer/pieces.ts";
import type { LeaseProgress } from "./messages.ts";
import type { Lease } from "./swarm.ts";

/** With less left than comes in this time, the next lease is asked for, so that there is no gap. */
const NEARLY_DONE_MS = 500;

interface Held {
  lease: Lease;
  bytes: number;
  since: number | undefined;
  /** It was reported that it is nearly done. */
  announced: boolean;
}

/** The leases of one member: what the coordinator says of them, and what has come for them. */
export class HeldLeases {
  readonly #geometry: PieceGeometry;
  readonly #have: PieceMap;
  readonly #clock: Clock;
  readonly #held = new Map<number, Held>();
  /** Done or handed back; the coordinator may not have heard of it when it said what is held. */
  readonly #over = new Set<number>();

  constructor(geometry: PieceGeometry, have: PieceMap, clock: Clock) {
    this.#geometry = geometry;
    this.#have = have;
    this.#clock = clock;
  }

  get list(): Lease[] {
    return [...this.#held.values()].map(({ lease }) => lease).toSorted((a, b) => a.first - b.first);
  }

  get progress(): LeaseProgress[] {
    return [...this.#held].map(([id, { bytes }]) => ({ id, bytes }));
  }

  get size(): number {
    return this.#held.size;
  }

  /** The coordinator's list of all there are. True when that is something new. */
  told(leases: readonly Lease[]): boolean {
    const valid = leases.filter(({ first, end }) => first < end && end <= this.#geometry.count);
    const ids = new Set(valid.map(({ id }) => id));
    let changed = false;
    for (const id of this.#over) if (!ids.has(id)) this.#over.delete(id);
    for (const id of this.#held.keys()) if (!ids.has(id)) changed = this.#held.delete(id) || changed;
    for (const lease of valid) {
      if (this.#over.has(lease.id) || this.#isDone(lease)) continue;
      const held = this.#held.get(lease.id);
      if (held === undefined) {
        this.#held.set(lease.id, { lease, bytes: 0, since: undefined, announced: false });
        changed = true;
      } else if (held.lease.first !== lease.first || held.lease.end !== lease.end) {
        if (held.lease.end < lease.end) held.announced = false;
        held.lease = lease;
        changed = true;
      }
    }
    return changed;
  }

  /** True when the coordinator should know now, since this lease is nearly done. */
  received({ id }: Lease, bytes: number): boolean {
    const held = this.#held.get(id);
    if (held === undefined) return false;
    held.since ??= this.#clock.now();
    held.bytes += bytes;
    if (held.announced || !this.#isNearlyDone(held)) return false;
    held.announced = true;
    return true;
  }

  /** A piece is here. Returns the leases that are done by it. */
  have(piece: number): Lease[] {
    const done: Lease[] = [];
    for (const { lease } of this.#held.values()) {
      if (piece >= lease.first && piece < lease.end && this.#isDone(lease)) done.push(lease);
    }
    for (const { id } of done) this.end(id);
    return done;
  }

  /** Others have got them meanwhile. True when there were any. */
  lapse(): boolean {
    const ids = [...this.#held.keys()];
    return ids.filter((id) => this.end(id)).length > 0;
  }

  /** True when it was held. */
  end(id: number): boolean {
    if (!this.#held.delete(id)) return false;
    this.#over.add(id);
    return true;
  }

  #isDone({ first, end }: Lease): boolean {
    for (let piece = first; piece < end; piece += 1) if (!this.#have.has(piece)) return false;
    return true;
  }

  #isNearlyDone({ lease, bytes, since }: Held): boolean {
    let next = lease.first;
    while (next < lease.end && this.#have.has(next)) next += 1;
    if (lease.end - next <= 1) return true;
    const elapsed = this.#clock.now() - (since ?? 0);
    if (elapsed <= 0) return false;
    const left = this.#geometry.end(lease.end - 1) - this.#geometry.start(next);
    return left < (bytes / elapsed) * NEARLY_DONE_MS;
  }
}
