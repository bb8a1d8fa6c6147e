import type { Peer } from "../routing/router.ts";
import type { PieceGeometry } from "../transfer/pieces.ts";
import { bitAt, packBits } from "./bitmap.ts";
import { Copies } from "./copies.ts";
import { HoldersOutside } from "./holders-outside.ts";
import { LeaseTable } from "./lease-table.ts";
import { MeshGraph } from "./mesh-graph.ts";
import {
  MAX_HOLDERS,
  type HandBack,
  type Join,
  type NeighbourNews,
  type Progress,
  type Told,
} from "./messages.ts";
import { holderOutside, joining, type RoomMember } from "./room-member.ts";
import { TIMES } from "./times.ts";
import { ranksByZone } from "./zone-ranks.ts";

/** With fewer neighbours than this, news of more cannot wait for the next answer. */
const FEW_NEIGHBOURS = 4;
/** When a zone has grown so much, its members take other turns than they know of. */
const GROWN_MUCH = 1.1;
/** Members that left complete, named beside the neighbours. */
const HOLDERS_NAMED = 3;
/** So many members cannot reach another one's data plane: it is not they who are cut off. */
const DOUBTERS = 2;

export interface RoomOptions {
  readonly geometry: PieceGeometry;
  readonly maxFetchers: number;
  readonly maxMembers: number;
  readonly random: () => number;
  /** There was another coordinator before: nothing new is leased until others had time to claim what they hold. */
  readonly settleUntil: number;
}

/**
 * One digest as its coordinator sees it: who fetches it, who has what, who is to bring what from upstream, who is told of
 * whom. Pure and synchronous: it is told the time and what happens, and answers who is to be told what.
 */
export class Room {
  readonly #options: RoomOptions;
  readonly #members = new Map<string, RoomMember>();
  /** Those that left complete. */
  readonly #holders = new Set<string>();
  /** At members, and those that left complete. */
  readonly #copies: Copies;
  /** When a member reported pieces last. */
  #gainedAt = -Infinity;
  readonly #outside = new HoldersOutside();
  /** Something has happened that leases depend on. */
  #dirty = true;
  #judgedAt = -Infinity;
  readonly #leases: LeaseTable;
  readonly #graph: MeshGraph;
  readonly #urgent = new Set<string>();
  /** Rank of each member in its zone; made anew when members change. */
  #ranks: ReadonlyMap<string, readonly [number, number]> | undefined;
  /** Somebody has joined since turns were told. */
  #grown = false;
  #settleUntil: number;

  constructor(options: RoomOptions) {
    this.#options = options;
    this.#settleUntil = options.settleUntil;
    this.#copies = new Copies(options.geometry);
    this.#graph = new MeshGraph(options.random);
    this.#leases = new LeaseTable({
      ...options,
      missing: (piece) => this.#isMissing(piece),
      complete: (id) => this.#members.get(id)?.have.complete === true,
    });
  }

  /** Members that have not left. */
  get size(): number {
    return this.#members.size - this.#holders.size;
  }

  get members(): string[] {
    return [...this.#members.values()].filter((member) => !member.left).map((member) => member.id);
  }

  get leases(): LeaseTable["all"] {
    return this.#leases.all;
  }

  /** Members of another coordinator are on their way. */
  settle(until: number): void {
    this.#settleUntil = Math.max(this.#settleUntil, until);
  }

  /** False when there are too many. */
  join(id: string, join: Join, now: number): boolean {
    this.gone(id);
    this.#outside.believe(id);
    if (this.#members.size >= this.#options.maxMembers) return false;
    const member = joining(id, join, this.#options.geometry.count, now);
    this.#members.set(id, member);
    for (let piece = 0; piece < this.#options.geometry.count; piece += 1) {
      if (bitAt(join.have, piece)) this.#gained(member, piece);
    }
    this.#graph.add(id, join.zone);
    this.#leases.enter(id, { zone: join.zone, denied: join.unauthorized, held: join.leases }, now);
    this.#ranks = undefined;
    this.#grown = true;
    this.#dirty = true;
    this.#urgent.add(id);
    return true;
  }

  /** What a member reports; it is to be answered. */
  progress(id: string, report: Progress, now: number): void {
    const member = this.#live(id, now);
    if (member === undefined) return;
    const { geometry } = this.#options;
    const { pieces, leases } = report;
    member.load = report.load;
    for (const piece of pieces) {
      // Not what members bring along when they join: that may be of any time.
      if (piece < geometry.count && this.#gained(member, piece))
        this.#outside.secured(geometry.length(piece));
    }
    if (pieces.length > 0) this.#gainedAt = now;
    for (const lease of leases) this.#leases.progress(id, lease.id, lease.bytes, now);
    this.#dirty ||= leases.length > 0;
    for (const other of report.lost) this.#part(member, other);
    for (const other of report.unreachable) this.#cannotReach(member, other);
    for (const peer of report.holders) this.#holds(peer, now);
    this.#urgent.add(id);
  }

  handBack(id: string, { lease, why }: HandBack, now: number): void {
    if (this.#live(id, now) === undefined) return;
    this.#leases.handBack(id, lease, why, now);
    this.#dirty = true;
    this.#urgent.add(id);
    // Nobody is let in: none of them has anything to wait for.
    if (this.#leases.fetchers === 0) for (const member of this.members) this.#urgent.add(member);
  }

  /** It goes; if complete, it stays a source for others. */
  leave(id: string, complete: boolean, now: number): void {
    const member = this.#live(id, now);
    if (member === undefined) return;
    if (!complete || !member.have.complete) {
      this.gone(id);
      return;
    }
    member.left = true;
    this.#holders.add(id);
    this.#withdraw(id);
  }

  /** Its channel is gone. */
  lost(id: string): void {
    if (this.#isMember(id)) this.gone(id);
  }

  /** It went without a word: nothing it had is there any more. */
  gone(id: string): void {
    const member = this.#members.get(id);
    if (member === undefined || !this.#members.delete(id)) return;
    this.#holders.delete(id);
    if (member.hearsay) {
      this.#outside.remove();
      this.#dirty = true;
      return;
    }
    this.#discount(member);
    this.#withdraw(id);
  }

  /** Looks after what time brings: those who are silent are out. Returns them. */
  tick(now: number): string[] {
    const out: string[] = [];
    if (this.#outside.judge(now, this.#leases.brought)) this.#dirty = true;
    for (const { id, left, heardAt } of this.#members.values()) {
      // Of a source outside nothing is heard; while members get pieces, it may well be from there.
      const since = left ? Math.max(heardAt, this.#gainedAt) : heardAt;
      if (now - since <= (left ? TIMES.completeHolder : TIMES.silent)) continue;
      this.gone(id);
      if (!left) out.push(id);
    }
    return out;
  }

  /** Who must be told something at once: leases, an answer, the first neighbours. */
  takeUrgent(now: number): string[] {
    // At N = 1,000 most messages have nothing to do with leases; time alone changes them seldom.
    if (now >= this.#settleUntil && (this.#dirty || now - this.#judgedAt >= TIMES.tick)) {
      this.#dirty = false;
      this.#judgedAt = now;
      for (const id of this.#leases.assign(now)) this.#urgent.add(id);
    }
    const urgent = [...this.#urgent].filter((id) => this.#isMember(id));
    this.#urgent.clear();
    return urgent;
  }

  /** Who should hear soon that it has (other) neighbours, or another turn. Others hear it with their next answer. */
  takeNeedy(): string[] {
    const needy = new Set(this.#graph.takeChanged().filter((id) => this.#knowsFew(id)));
    // Only at holders outside everybody takes turns from the beginning.
    if (!this.#outside.any || !this.#grown) return [...needy];
    this.#grown = false;
    for (const { id, left, rankedAmong } of this.#members.values())
      if (!left && this.#rankOf(id)[1] > GROWN_MUCH * rankedAmong) needy.add(id);
    return [...needy];
  }

  #knowsFew(id: string): boolean {
    const member = this.#members.get(id);
    if (member === undefined || member.left) return false;
    let known = 0;
    const neighbours = this.#graph.neighboursOf(id);
    for (const other of neighbours) if (member.told.has(other)) known += 1;
    return known < Math.min(FEW_NEIGHBOURS, neighbours.length);
  }

  /** All that a member is to know now; the next one says what has changed since. */
  toldTo(id: string, now: number): Told | undefined {
    const member = this.#members.get(id);
    if (member === undefined) return undefined;
    const neighbours = this.#graph.neighboursOf(id);
    const current = new Set(neighbours);
    const gone = [...member.told].filter((other) => !current.has(other) && !this.#members.get(other)?.left);
    for (const other of gone) member.told.delete(other);
    const named = [...neighbours, ...this.#holdersFor(member)].filter((other) => !member.told.has(other));
    for (const other of named) member.told.add(other);
    const [zoneRank, zoneSize] = this.#rankOf(member.id);
    member.rankedAmong = zoneSize;
    return {
      kind: "told",
      leases: this.#leases.leasesOf(id),
      neighbours: named.map((other) => this.#newsOf(other)).filter((news) => news !== undefined),
      gone,
      fetchers: this.#leases.fetchers,
      pausedMs: Math.ceil(this.#leases.pausedMs(now)),
      brought: this.#leases.brought,
      zoneRank,
      zoneSize,
    };
  }

  /** No member has it, and no holder outside is good for it. */
  #isMissing(piece: number): boolean {
    return this.#copies.of(piece) === 0 && !this.#outside.deliver;
  }

  #isMember(id: string): boolean {
    return this.#members.get(id)?.left === false;
  }

  #live(id: string, now: number): RoomMember | undefined {
    const member = this.#members.get(id);
    if (member === undefined || member.left) return undefined;
    member.heardAt = now;
    return member;
  }

  /** True when no member had it. */
  #gained(member: RoomMember, piece: number): boolean {
    if (member.have.has(piece)) return false;
    member.have.set(piece);
    const isFirst = !member.dark && this.#copies.add(piece);
    this.#dirty ||= isFirst;
    return isFirst;
  }

  #withdraw(id: string): void {
    this.#leases.leave(id);
    this.#dirty = true;
    this.#graph.remove(id);
    this.#urgent.delete(id);
    this.#ranks = undefined;
  }

  /** A node that is no member has the whole blob, as a lookup says. */
  #holds(peer: Peer, now: number): void {
    const known = this.#members.get(peer.id);
    if (known?.hearsay === true) known.heardAt = now;
    if (known !== undefined || this.#outside.isDoubted(peer.id)) return;
    if (this.#members.size >= this.#options.maxMembers || this.#holders.size >= MAX_HOLDERS) return;
    this.#members.set(peer.id, holderOutside(peer, this.#options.geometry.count, now));
    this.#holders.add(peer.id);
    this.#outside.add(now, this.#leases.brought);
    this.#dirty = true;
  }

  /** What it has is not to be had any more. */
  #discount(member: RoomMember): void {
    if (member.dark) return;
    member.dark = true;
    this.#dirty = true;
    this.#copies.remove(member.have);
  }

  /** They are no neighbours any more, whatever the graph says. */
  #part(member: RoomMember, id: string): void {
    member.told.delete(id);
    this.#graph.separate(member.id, id);
  }

  #cannotReach(member: RoomMember, id: string): void {
    this.#part(member, id);
    const other = this.#members.get(id);
    if (other === undefined) return;
    if (other.left) {
      // Who left is heard of no more; that it cannot be reached is all that is ever known of its end.
      if (other.hearsay) this.#outside.doubt(id);
      this.gone(id);
      return;
    }
    other.doubters.add(member.id);
    // One alone may be the one that is cut off; what only this node has would never be fetched by anybody.
    if (other.doubters.size >= Math.min(DOUBTERS, this.size - 1)) this.#discount(other);
  }

  /** Some that left with the whole blob, for a member that has little. */
  #holdersFor(member: RoomMember): string[] {
    if (member.have.complete || this.#holders.size === 0) return [];
    const holders = [...this.#holders];
    const start = Math.floor(this.#options.random() * holders.length);
    const known = holders.filter((id) => member.told.has(id)).length;
    return [...holders.slice(start), ...holders.slice(0, start)]
      .filter((id) => !member.told.has(id))
      .slice(0, Math.max(0, HOLDERS_NAMED - known));
  }

  #newsOf(id: string): NeighbourNews | undefined {
    const member = this.#members.get(id);
    if (member === undefined) return undefined;
    const { peer, contact, zone, load, left, have } = member;
    const bits = packBits(this.#options.geometry.count, (piece) => have.has(piece));
    return { peer, contact, zone, load, left, have: bits };
  }

  #rankOf(id: string): readonly [number, number] {
    this.#ranks ??= ranksByZone([...this.#members.values()].filter((member) => !member.left));
    return this.#ranks.get(id) ?? [0, 0];
  }
}
