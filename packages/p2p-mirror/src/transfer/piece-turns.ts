import type { Clock } from "@p2p-mirror/shared";
import type { Neighbour, SwarmMember } from "../swarm/swarm.ts";
import type { FlightPieces } from "./flight-pieces.ts";

/** A piece that only other zones have is left so long to the node of this zone whose turn it is. */
const ZONE_PATIENCE_MS = 2_000;
/**
 * One that nobody has but who has everything, while others still bring such pieces. Without, a hundred nodes ask the first
 * one that is complete for the same last piece in the same moment, which takes seconds then.
 */
const HOLDER_PATIENCE_MS = 1_000;

export interface PieceTurnsDeps {
  readonly member: SwarmMember;
  /** Of this node; "" when it is not known. */
  readonly zone: string;
  readonly pieces: FlightPieces;
  readonly clock: Clock;
  /** What was left to others may be this node's to fetch now. */
  readonly changed: () => void;
}

/**
 * Whose turn it is to bring a piece to the others: so that each byte enters a zone once, and leaves a holder of the whole
 * once before any does twice, since all first copies have to go through its uplink.
 */
export class PieceTurns {
  readonly #deps: PieceTurnsDeps;
  /** Since when a piece is known to be in other zones. */
  readonly #elsewhere = new Map<number, number>();
  #cancel: (() => void) | undefined;
  #holders = 0;
  #crowded = false;
  /** Pieces that are not here, and that holders only have; when they became fewer last. */
  #rare = Infinity;
  #fewerAt = -Infinity;

  constructor(deps: PieceTurnsDeps) {
    this.#deps = deps;
  }

  /** Others want the blob, too: among them there are turns at those who have everything. */
  get crowded(): boolean {
    return this.#crowded;
  }

  /** Something is left to others for a while. */
  get waiting(): boolean {
    return this.#cancel !== undefined;
  }

  /** Looks at the neighbours there are now, for what is asked afterwards. */
  look(): void {
    const { member, clock } = this.#deps;
    const { neighbours } = member;
    this.#holders = 0;
    for (const { complete } of neighbours) if (complete) this.#holders += 1;
    this.#crowded = this.#holders < neighbours.length;
    if (this.#holders === 0 || !this.#crowded) return;
    const rare = this.#countRare();
    if (rare < this.#rare) this.#fewerAt = clock.now();
    this.#rare = rare;
  }

  /** The piece is not to be asked of this neighbour now. */
  isOthers(neighbour: Neighbour, piece: number): boolean {
    const { member, clock, changed } = this.#deps;
    if (member.bringsIn(piece)) return false;
    const left = this.#leftUntil(neighbour, piece) - clock.now();
    if (left <= 0) return false;
    this.#cancel ??= clock.after(left, () => {
      this.#cancel = undefined;
      changed();
    });
    return true;
  }

  close(): void {
    this.#cancel?.();
    this.#cancel = undefined;
  }

  #leftUntil(neighbour: Neighbour, piece: number): number {
    const { zone, clock } = this.#deps;
    // Of a holder that never was a member the zone is not known.
    if (neighbour.zone !== zone && neighbour.zone !== "") {
      const since = this.#elsewhere.get(piece) ?? clock.now();
      this.#elsewhere.set(piece, since);
      return since + ZONE_PATIENCE_MS;
    }
    const rare = neighbour.complete && this.#crowded && this.#isRare(piece);
    return rare ? this.#fewerAt + HOLDER_PATIENCE_MS : -Infinity;
  }

  #isRare(piece: number): boolean {
    return this.#deps.member.rarity(piece) <= this.#holders;
  }

  #countRare(): number {
    const { map, geometry } = this.#deps.pieces;
    let rare = 0;
    for (let piece = 0; piece < geometry.count; piece += 1)
      if (!map.has(piece) && this.#isRare(piece)) rare += 1;
    return rare;
  }
}
