import type { Neighbour, SwarmMember } from "../swarm/swarm.ts";
import type { Picker } from "./picker.ts";

/**
 * Of the open pieces that a neighbour has, so many of the lowest are looked at: readers read in order. With 16 all members
 * of a crowd around one holder ask it for the same pieces: in simulation, last node / bound 2.77 and 3.18 for 8 and 16
 * nodes, with 64 1.83 and 2.12; where upstream is the limit it makes no difference.
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
  /** Not from this neighbour now: it does not have it after all, or this node brings it from upstream itself. */
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
  const window: number[] = [];
  for (let nth = 0; nth < count && window.length < WINDOW; nth += 1) {
    const piece = (from + nth) % count;
    if (neighbour.has(piece) && picker.isFree(piece) && !excluded(neighbour, piece)) window.push(piece);
  }
  let chosen: number | undefined;
  let least = Infinity;
  for (const piece of window) {
    // A fraction decides between those that are equally rare.
    const rarity = member.rarity(piece) + random();
    if (rarity >= least) continue;
    least = rarity;
    chosen = piece;
  }
  return chosen;
}
