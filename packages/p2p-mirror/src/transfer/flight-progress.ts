import type { ByteRange } from "@p2p-mirror/shared";
import type { SwarmMember } from "../swarm/swarm.ts";
import type { PieceGeometry } from "./pieces.ts";
import type { BlobSource } from "./source.ts";

/** A source that has a request of a flight under way. */
export type AtWork = Pick<BlobSource, "kind" | "id">;

/** How far a flight is, for the status page. Sizes in bytes. */
export interface FlightProgress {
  /** That are here; each counts once. */
  readonly received: number;
  /** That were delivered, also those that were fetched twice. */
  readonly fromUpstream: number;
  readonly fromPeers: number;
  /** Who has requests under way. */
  readonly sources: readonly AtWork[];
  /** Undefined: this flight is not a member of a swarm. */
  readonly swarm: SwarmProgress | undefined;
}

export interface SwarmProgress extends Pick<
  SwarmMember,
  "coordinator" | "alone" | "neighbours" | "fetchers"
> {
  /** What is left of them. */
  readonly leases: readonly ByteRange[];
}

export interface Filling {
  readonly geometry: PieceGeometry;
  isDone(piece: number): boolean;
  /** One past the last byte of a piece that is here. */
  filledTo(piece: number): number;
}

export function bytesHere(pieces: Filling): number {
  const { geometry } = pieces;
  let bytes = 0;
  for (let piece = 0; piece < geometry.count; piece += 1) {
    bytes += (pieces.isDone(piece) ? geometry.end(piece) : pieces.filledTo(piece)) - geometry.start(piece);
  }
  return bytes;
}

export const swarmProgress = (member: SwarmMember, geometry: PieceGeometry): SwarmProgress => ({
  coordinator: member.coordinator,
  alone: member.alone,
  neighbours: member.neighbours,
  fetchers: member.fetchers,
  leases: member.leases
    .filter(({ first, end }) => first < end)
    .map(({ first, end }) => geometry.range(first, end - 1)),
});
