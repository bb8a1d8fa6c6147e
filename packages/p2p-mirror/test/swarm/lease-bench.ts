import { LeaseTable } from "../../src/swarm/lease-table.ts";
import type { Lease } from "../../src/swarm/swarm.ts";
import { PieceGeometry } from "../../src/transfer/pieces.ts";
import { seeded } from "./rig.ts";

/** A table, the pieces that are there, and members that fetch at a rate of their own. */
export class LeaseBench {
  readonly geometry: PieceGeometry;
  readonly present: Set<number> = new Set();
  readonly table: LeaseTable;
  readonly got = new Map<number, number>();
  now = 0;

  constructor(size: number, maxFetchers = 8) {
    this.geometry = new PieceGeometry(size);
    this.table = new LeaseTable({
      geometry: this.geometry,
      maxFetchers,
      random: seeded(7),
      missing: (piece) => !this.present.has(piece),
    });
  }

  enter(id: string, about: Partial<Parameters<LeaseTable["enter"]>[1]> = {}): void {
    this.table.enter(id, { zone: "", denied: false, held: [], ...about }, this.now);
    this.table.assign(this.now);
  }

  bytes({ first, end }: Lease): number {
    return this.geometry.end(end - 1) - this.geometry.start(first);
  }

  /** Every holder fetches for `ms` at its rate, in order; pieces it completes are there. */
  fetch(ms: number, rates: Record<string, number>): void {
    this.now += ms;
    for (const [holder, rate] of Object.entries(rates)) {
      let budget = (rate * ms) / 1_000;
      for (const lease of this.table.leasesOf(holder)) {
        for (let piece = lease.first; piece < lease.end && budget > 0; piece += 1) {
          if (this.present.has(piece)) continue;
          const size = this.geometry.length(piece);
          const before = this.got.get(piece) ?? 0;
          const some = Math.min(budget, size - before);
          budget -= some;
          this.got.set(piece, before + some);
          if (before + some >= size) this.present.add(piece);
          this.got.set(-lease.id, (this.got.get(-lease.id) ?? 0) + some);
        }
        this.table.progress(holder, lease.id, Math.floor(this.got.get(-lease.id) ?? 0), this.now);
      }
    }
    this.table.assign(this.now);
  }

  get complete(): boolean {
    return this.present.size === this.geometry.count;
  }
}
