import type { Clock } from "@p2p-mirror/shared";
import type { Neighbour, SwarmMember } from "../swarm/swarm.ts";
import type { FlightPieces } from "./flight-pieces.ts";

/** A piece that only other zones have is left so long to the node of this zone whose turn it is. */
const ZONE_PATIENCE_MS = 2_000;
/**
 * What others bring in, or have by now, is not asked of who has everything, as long as others get something there that was
 * nowhere else: since the last such piece for so long, or for as long as so many pieces take if that is longer. Without,
 * a hundred nodes ask the first one that is complete for the same last piece in the same moment, which takes seconds then;
 * with the first alone, a holder with 100 Mbit/s, where a piece takes a second, sent four layers of 64 MiB 1.17 times to
 * three nodes. A flight fails after 45 s without a byte.
 */
const HOLDER_PATIENCE_MS = 1_000;
const HOLDER_PATIENCE_PIECES = 4;
const LONGEST_PATIENCE_MS = 10_000;
/** Who has so many left to bring in is helped, besides one that may be on its way from each holder. */
const HELPED_FROM = 2;

export interface PieceTurnsDeps {
  readonly member: SwarmMember;
  /** Of this node; "" when it is not known. */
  readonly zone: string;
  readonly pieces: FlightPieces;
  readonly clock: Clock;
  /** Milliseconds that a piece usually takes; undefined while none has come. */
  readonly usual: (piece: number) => number | undefined;
  /** Nothing speaks against asking it for the piece now. */
  readonly gives: (neighbour: Neighbour, piece: number) => boolean;
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
  #inOrder = false;
  /** Neighbours of this zone, or of no known one, that do not have everything. */
  #others: readonly Neighbour[] = [];
  /** Pieces that are not here, and that of all neighbours holders only have. */
  #rare: ReadonlySet<number> = new Set();
  /** How many of them are each member's to bring in. */
  #left: ReadonlyMap<number, number> = new Map();
  /** When another one had got one of them last, or they were looked at first. */
  #broughtAt: number | undefined;

  constructor(deps: PieceTurnsDeps) {
    this.#deps = deps;
  }

  /** Others want the blob, too: among them there are turns at those who have everything. */
  get crowded(): boolean {
    return this.#crowded;
  }

  /**
   * No other node has the turns of this one. Each zone has its own: with one node in each of seven zones, all asked the holder
   * for the same next piece (5.9 copies out of it; by chance 1.4).
   */
  get inOrder(): boolean {
    return this.#inOrder;
  }

  /** Something is left to others for a while. */
  get waiting(): boolean {
    return this.#cancel !== undefined;
  }

  /** Looks at the neighbours there are now, for what is asked afterwards. */
  look(): void {
    const { member, zone, clock } = this.#deps;
    const { neighbours } = member;
    // What was left to others may be nobody's any more.
    this.close();
    this.#holders = 0;
    for (const { complete } of neighbours) if (complete) this.#holders += 1;
    this.#crowded = this.#holders < neighbours.length;
    // Before the coordinator has said who takes turns, all pieces are everybody's.
    const areTurns = this.#crowded && member.turnOf(1) > 0;
    this.#inOrder = areTurns && neighbours.every((one) => one.complete || one.zone === zone);
    if (this.#holders === 0 || !this.#crowded) return;
    this.#others = neighbours.filter((one) => !one.complete && (one.zone === zone || one.zone === ""));
    this.#broughtAt ??= clock.now();
    for (const piece of this.#rare) if (!this.#isRare(piece)) this.#broughtAt = clock.now();
    this.#rare = this.#allRare();
    const left = new Map<number, number>();
    for (const piece of this.#rare) {
      const turn = member.turnOf(piece);
      left.set(turn, (left.get(turn) ?? 0) + 1);
    }
    this.#left = left;
  }

  /** The piece is not to be asked of this neighbour now. One that is urgent is not left to whoever has yet to bring it. */
  isOthers(neighbour: Neighbour, piece: number, isUrgent = false): boolean {
    const { clock, changed } = this.#deps;
    if (isUrgent && (!neighbour.complete || this.#isRare(piece))) return false;
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
    const isMine = this.#isRare(piece) ? isOwn || this.#helps(piece) : !this.#isGiven(piece);
    if (isMine) return -Infinity;
    const usual = this.#deps.usual(piece) ?? 0;
    const patience = Math.max(HOLDER_PATIENCE_MS, HOLDER_PATIENCE_PIECES * usual);
    return (this.#broughtAt ?? clock.now()) + Math.min(LONGEST_PATIENCE_MS, patience);
  }

  #isGiven(piece: number): boolean {
    return this.#others.some((other) => other.has(piece) && this.#deps.gives(other, piece));
  }

  #helps(piece: number): boolean {
    const { member } = this.#deps;
    return (
      member.standsIn(piece) && (this.#left.get(member.turnOf(piece)) ?? 0) >= HELPED_FROM + this.#holders
    );
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
