import type { Clock } from "@p2p-mirror/shared";
import type { Neighbour, SwarmMember } from "../swarm/swarm.ts";
import type { FlightPieces } from "./flight-pieces.ts";

/** A piece that only other zones have is left so long to the node of this zone whose turn it is. */
const ZONE_PATIENCE_MS = 2_000;
/**
 * One that nobody has but who has everything, while others still bring such pieces: since the last one for so long, and for
 * as long as so many pieces take. Without, a hundred nodes ask the first one that is complete for the same last piece in the
 * same moment, which takes seconds then; with the milliseconds alone, four layers of 64 MiB for three nodes around a holder
 * with 100 Mbit/s, where a piece takes a second, left it 1.17 times.
 */
const HOLDER_PATIENCE_MS = 1_000;
const HOLDER_PATIENCE_PIECES = 4;
/** Who has so many left to bring in is helped: one of them may be on its way. */
const HELPED_FROM = 3;

export interface PieceTurnsDeps {
  readonly member: SwarmMember;
  /** Of this node; "" when it is not known. */
  readonly zone: string;
  readonly pieces: FlightPieces;
  readonly clock: Clock;
  /** Milliseconds that a piece usually takes; undefined while none has come. */
  readonly usual: (piece: number) => number | undefined;
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
  /** Pieces that are not here, and that holders only have. */
  #rare: ReadonlySet<number> = new Set();
  /** How many of them are each member's to bring in. */
  #left: ReadonlyMap<number, number> = new Map();
  /** When another one had got one of them last. */
  #broughtAt = -Infinity;

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
    for (const piece of this.#rare) if (!this.#isRare(piece)) this.#broughtAt = clock.now();
    this.#rare = this.#allRare();
    const left = new Map<number, number>();
    for (const turn of [...this.#rare].map((piece) => member.turnOf(piece)))
      left.set(turn, (left.get(turn) ?? 0) + 1);
    this.#left = left;
  }

  /** The piece is not to be asked of this neighbour now. */
  isOthers(neighbour: Neighbour, piece: number): boolean {
    const { clock, changed } = this.#deps;
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
    const { member, zone, clock } = this.#deps;
    const isOwn = member.bringsIn(piece);
    // Of a holder that never was a member the zone is not known.
    if (neighbour.zone !== zone && neighbour.zone !== "") {
      if (isOwn) return -Infinity;
      const since = this.#elsewhere.get(piece) ?? clock.now();
      this.#elsewhere.set(piece, since);
      return since + ZONE_PATIENCE_MS;
    }
    if (!neighbour.complete || !this.#crowded || this.#rare.size === 0) return -Infinity;
    // What others have, too, they give: the holder's uplink is for what they have not.
    if (this.#isRare(piece) && (isOwn || this.#helps(piece))) return -Infinity;
    const usual = this.#deps.usual(piece) ?? 0;
    return this.#broughtAt + Math.max(HOLDER_PATIENCE_MS, HOLDER_PATIENCE_PIECES * usual);
  }

  #helps(piece: number): boolean {
    const { member } = this.#deps;
    return member.standsIn(piece) && (this.#left.get(member.turnOf(piece)) ?? 0) >= HELPED_FROM;
  }

  #isRare(piece: number): boolean {
    return this.#deps.member.rarity(piece) <= this.#holders;
  }

  #allRare(): Set<number> {
    const { map, geometry } = this.#deps.pieces;
    const rare = new Set<number>();
    for (let piece = 0; piece < geometry.count; piece += 1)
      if (!map.has(piece) && this.#isRare(piece)) rare.add(piece);
    return rare;
  }
}
