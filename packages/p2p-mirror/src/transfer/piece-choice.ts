import type { Neighbour, SwarmMember } from "../swarm/swarm.ts";
import type { Picker } from "./picker.ts";

/**
 * Of the open pieces that a neighbour has, so many of the lowest are looked at: readers read in order. Of one that has
 * everything, all: which of them are this node's to bring is not a matter of order.
 */
const WINDOW = 64;

export interface ChoiceOptions {
  readonly picker: Picker;
  readonly count: number;
  readonly member: SwarmMember;
  /** From 0 to 1. */
  readonly random: () => number;
  /** The piece the newest reader waits for. */
  readonly from: number;
  /** Not from this neighbour now: it does not have it after all, or it is others' to bring. */
  readonly excluded: (neighbour: Neighbour, piece: number) => boolean;
}

/**
 * What to ask a neighbour for: of the first pieces that it has and this node has not, the one that the fewest others have.
 * Strictly in order, all would wait for the same pieces (up to 1.21 of the physical bound in simulation; this: 1.01-1.05).
 */
export function choosePiece(
  neighbour: Neighbour,
  { picker, count, member, random, from, excluded }: ChoiceOptions,
): number | undefined {
  let room = neighbour.complete ? count : WINDOW;
  let chosen: number | undefined;
  let least = Infinity;
  for (let nth = 0; nth < count && room > 0; nth += 1) {
    const piece = (from + nth) % count;
    if (!neighbour.has(piece) || !picker.isFree(piece) || excluded(neighbour, piece)) continue;
    room -= 1;
    // Of one that all ask, each takes what it is its turn to bring; and a fraction decides between what is left.
    const turn = neighbour.complete && !member.bringsIn(piece) ? 1 : 0;
    const rank = 2 * member.rarity(piece) + turn + random();
    if (rank >= least) continue;
    least = rank;
    chosen = piece;
  }
  return chosen;
}
