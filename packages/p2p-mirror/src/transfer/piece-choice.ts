import type { Neighbour, SwarmMember } from "../swarm/swarm.ts";

/**
 * Of the open pieces that a neighbour has, so many of the lowest are looked at: readers read in order. Of one that has
 * everything, all: which of them are this node's to bring is not a matter of order.
 */
const WINDOW = 64;

export interface ChoiceOptions {
  /** Pieces that are neither here nor on their way, in the order readers want them. */
  readonly open: ReadonlySet<number>;
  /** Whoever has it shall be asked for it first. */
  readonly urgent?: number | undefined;
  readonly member: Pick<SwarmMember, "rarity" | "bringsIn">;
  /** From 0 to 1. */
  readonly random: () => number;
  /** What it is this node's turn to bring is brought in order: nobody else has the same turns. */
  readonly inOrder: boolean;
  /** Not from this neighbour now: it does not have it after all, or it is others' to bring. */
  readonly excluded: (neighbour: Neighbour, piece: number) => boolean;
}

/**
 * What to ask a neighbour for: of the first pieces that it has and this node has not, the one that the fewest others have.
 * Strictly in order, all would wait for the same pieces (up to 1.21 of the physical bound in simulation; this: 1.01-1.05).
 */
export function choosePiece(
  neighbour: Neighbour,
  { open, urgent, member, random, inOrder, excluded }: ChoiceOptions,
): number | undefined {
  if (urgent !== undefined && open.has(urgent) && neighbour.has(urgent) && !excluded(neighbour, urgent))
    return urgent;
  let room = neighbour.complete ? Infinity : WINDOW;
  let chosen: number | undefined;
  let least = Infinity;
  for (const piece of open) {
    if (room === 0) break;
    if (!neighbour.has(piece) || excluded(neighbour, piece)) continue;
    room -= 1;
    // Of one that all ask, each takes what it is its turn to bring, and that in order, if it can be: what is read as it
    // comes need not be read back from the disk. Between what is left chance decides.
    const isTurn = neighbour.complete && member.bringsIn(piece);
    const chance = isTurn && inOrder ? 0 : random();
    const rank = 2 * member.rarity(piece) + Number(neighbour.complete && !isTurn) + chance;
    if (rank >= least) continue;
    least = rank;
    chosen = piece;
  }
  return chosen;
}
