import type { Clock, Logger } from "@p2p-mirror/shared";
import type { KnownHashes, SwarmMember } from "../swarm/swarm.ts";
import type { AskForPiece } from "./fetch-piece.ts";
import type { FlightPieces } from "./flight-pieces.ts";
import type { HolderQueue } from "./holder-queue.ts";
import type { BlobSource } from "./source.ts";

/** What everybody who fetches for a flight works on, and whom it tells. */
export interface FetchDeps {
  readonly pieces: FlightPieces;
  readonly clock: Clock;
  readonly logger: Logger;
  /** A source has answered with a body. */
  readonly accepted: (kind: BlobSource["kind"]) => void;
  /** A chunk that readers may have begins at `offset`. */
  readonly arrived: (offset: number) => void;
  /** So many bytes are in the spool that were not. */
  readonly written: (kind: BlobSource["kind"], bytes: number) => void;
  /** A piece was asked of a second neighbour, too: whether that one was first. */
  readonly hedged?: ((won: boolean) => void) | undefined;
  /** Sources or their work have changed: look what is to be done. */
  readonly changed: () => void;
}

/** What a flight needs to be a member of the swarm of its blob. */
export interface Crowd {
  readonly member: SwarmMember;
  readonly hashes: KnownHashes;
  readonly ask: AskForPiece;
  /** Of this node; "" when it is not known. */
  readonly zone: string;
  /** From 0 to 1. */
  readonly random: () => number;
  /** Of this node, for all of its blobs. */
  readonly holders: HolderQueue;
  /** That this node fetches together with others now, this one among them. */
  readonly blobs: () => number;
  /** Takes what is here from another try and believed by now. True when there was any. */
  recall(): boolean;
}
