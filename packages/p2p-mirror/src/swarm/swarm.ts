import type { Digest } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import type { PieceGeometry, PieceMap } from "../transfer/pieces.ts";

/**
 * Port: what a flight knows of the others that fetch the same blob now. Control only, no bytes of the blob go through it;
 * and advice only: whatever is wrong here costs duplicate bytes, never wrong ones.
 */
export interface Swarm {
  /**
   * Becomes a member of the swarm of this digest; looks for its coordinator meanwhile. Abort of `signal` is the same as
   * `leave`.
   */
  join(about: JoinAbout, signal: AbortSignal): SwarmMember;

  /** Swarms that this node is a member of now. */
  readonly memberships: number;

  /**
   * What is known of the hashes of a blob's pieces, member or not: they go with the pieces over the data plane, also from
   * nodes that have the whole blob and left, or never joined. Kept for some hundred blobs.
   */
  hashes(about: Pick<JoinAbout, "digest" | "size" | "geometry">): KnownHashes;
}

/** Who says that a piece has this sha256: 32 bytes, a peer ID, an Ed25519 signature of 64 bytes. */
export interface SignedHash {
  readonly piece: number;
  readonly sha256: Uint8Array;
  readonly signer: string;
  readonly signature: Uint8Array;
}

export interface KnownHashes {
  /** The hash that counts, to check a piece against and to pass on with it. */
  of(piece: number): SignedHash | undefined;
  /** Somebody has signed a hash of it, but none counts: a member's piece is of no use before another one has, too. */
  isDoubted(piece: number): boolean;
  /** There may be such pieces. */
  readonly doubts: boolean;
  /**
   * Pieces in doubt that this node is to fetch from upstream itself, most telling first, as far as others have them (of
   * the rest somebody is given a lease). Members that are `present` and have signed pieces of this blob share that out.
   */
  toCheck(present: ReadonlySet<string>): number[];
  /** Takes a hash that came with a piece. False: it is not valid, of a banned signer, or one that is known is believed. */
  learn(hash: SignedHash): boolean;
  /** Signs the hash of a piece that this node has from upstream or from a verified blob. */
  sign(piece: number, sha256: Uint8Array): void;
}

export interface JoinAbout {
  readonly digest: Digest;
  /**
   * Bytes of the blob; every member must say the same. For what is fetched in one request and whose size is not known
   * beforehand (a manifest) all say 1: one piece, and one of them is to fetch it.
   */
  readonly size: number;
  readonly geometry: PieceGeometry;
  /** What is here already. Read while joining; what comes later is told by `have`. */
  readonly have: PieceMap;
}

/** Consecutive pieces that this node, and nobody else, is to fetch from upstream now. */
export interface Lease {
  /** Stays the same while the ends move, and from one coordinator to the next. */
  readonly id: number;
  /** Moves up as pieces come, whoever brought them. */
  readonly first: number;
  /** One past the last piece. Moves down when others take a part. */
  readonly end: number;
}

/** Another member: a source of the pieces it has. */
export interface Neighbour {
  readonly peer: Peer;
  /** "" when it is not known. */
  readonly zone: string;
  /** Share of its upload slots that are busy, 0 to 1. */
  readonly load: number;
  /** It has the whole blob. */
  readonly complete: boolean;
  /** It is no member any more, but still gives what it has. */
  readonly left: boolean;
  has(piece: number): boolean;
}

/**
 * Why a lease is given back. `unranged`: upstream ignores Range, so that one node must stream the whole (this one, while
 * it is the first to say so).
 */
export type HandBackReason =
  | { readonly kind: "unauthorized" }
  | { readonly kind: "failed" }
  | { readonly kind: "rate-limited"; readonly retryAfterMs?: number | undefined }
  | { readonly kind: "unranged" };

export interface SwarmMember {
  /** Own zone first, then the least loaded. */
  readonly neighbours: readonly Neighbour[];
  /** Lowest first. One that is not in the list any more is another's now: stop fetching it. */
  readonly leases: readonly Lease[];
  /** No coordinator can be had at the moment: fetch what is missing from upstream. May become false again. */
  readonly alone: boolean;
  /** Members that upstream lets in, as far as the coordinator knows. 0: nobody will bring what no neighbour has. */
  readonly fetchers: number;
  /** Upstream wants to be left alone for so many milliseconds (Retry-After that some member got); else 0. */
  readonly pausedMs: number;
  /** Bytes that members have brought from upstream, as this coordinator knows: while it changes they are at work. */
  readonly brought: number;
  /** Times that it heard of nobody for so long that others have done its part: who has everything may be anybody by then. */
  readonly absences: number;
  /** Who coordinates; undefined while there is none. */
  readonly coordinator: { readonly id: string; readonly self: boolean } | undefined;
  /** The next change of any of these. Take it before looking, so that no change in between is missed. */
  readonly change: Promise<void>;

  /** How many neighbours have it. */
  rarity(piece: number): number;
  /**
   * It is this node's turn to bring the piece, when only other zones have it, or nodes that have everything: these should
   * send each piece once before they send any twice. Each piece is one member's of each zone.
   */
  bringsIn(piece: number): boolean;
  /** The number in this node's zone of the member whose turn that is. */
  turnOf(piece: number): number;
  /** It is not this node's turn, but it comes next: when whose turn it is has too much to do. */
  standsIn(piece: number): boolean;
  /** The sha256 of a piece by a valid signature of a member that is not banned. */
  hashOf(piece: number): Buffer | undefined;
  /** Whose word `hashOf` is. */
  signerOf(piece: number): string | undefined;

  /**
   * The piece is here, verified against `hashOf` (or from upstream), and may be given to others. `fromUpstream`: this node
   * has it from upstream or from a verified blob, and signs its hash.
   */
  have(piece: number, sha256: Uint8Array, fromUpstream: boolean): void;
  /** So many more bytes came for a lease; renews it. */
  received(lease: Lease, bytes: number): void;
  handBack(lease: Lease, why: HandBackReason): void;
  /** A lookup has found this node with the whole blob: all shall know, and upstream is not asked while it delivers. */
  holds(peer: Peer): void;
  /** No connection to the data plane of this neighbour or holder, or it does not have what it should. */
  unreachable(peer: Peer): void;
  /** The blob did not match its digest: it is not had, and no single member is believed for it until it is known who lied. */
  mismatch(hashes: readonly (Uint8Array | undefined)[]): void;
  /** The blob is verified, with these hashes of its pieces: whoever signed another one is banned. */
  verified(hashes: readonly (Uint8Array | undefined)[]): void;
  /** Ends the membership: complete or given up. Others still know that a complete one has it, if it `keeps` it (default). */
  leave(keeps?: boolean): Promise<void>;
}
