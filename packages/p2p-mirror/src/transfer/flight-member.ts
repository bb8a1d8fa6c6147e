import type { Digest } from "@p2p-mirror/shared";
import type { KnownHashes, SignedHash, Swarm, SwarmMember } from "../swarm/swarm.ts";
import type { AskForPiece } from "./fetch-piece.ts";
import type { FlightPieces } from "./flight-pieces.ts";
import type { HolderQueue } from "./holder-queue.ts";

/** How a flight takes part in the swarm. */
export interface FlightSwarm {
  readonly swarm: Swarm;
  readonly ask: AskForPiece;
  /** Of this node; "" when it is not known. */
  readonly zone: string;
  /** From 0 to 1. */
  readonly random: () => number;
  /** Of this node, for all of its flights. */
  readonly holders: HolderQueue;
}

/** For pieces whose hash is nobody's to tell. */
const NO_HASH = new Uint8Array();

/** A flight as a member of the swarm of its blob: tells which pieces are here, and what their hashes proved to be. */
export class FlightMember {
  readonly member: SwarmMember;
  readonly hashes: KnownHashes;
  readonly ask: AskForPiece;
  readonly zone: string;
  readonly random: () => number;
  readonly blobs: () => number;
  readonly holders: HolderQueue;
  readonly #pieces: FlightPieces;

  /** `signal` ends the membership. */
  constructor(
    { digest, size }: { readonly digest: Digest; readonly size: number },
    pieces: FlightPieces,
    { swarm, ask, zone, random, holders }: FlightSwarm,
    signal: AbortSignal,
  ) {
    const { geometry, map } = pieces;
    const about = { digest, size, geometry };
    this.hashes = swarm.hashes(about);
    pieces.recall((piece) => this.hashes.of(piece)?.sha256);
    this.member = swarm.join({ ...about, have: map }, signal);
    this.ask = ask;
    this.zone = zone;
    this.random = random;
    this.holders = holders;
    this.blobs = () => swarm.memberships;
    this.#pieces = pieces;
    const { member } = this;
    pieces.sharing = {
      get wanted() {
        return member.neighbours.length > 0;
      },
      here: (piece, sha256) => member.have(piece, sha256 ?? NO_HASH, sha256 !== undefined),
    };
  }

  /** Others may have it; it may have to be hashed first. */
  gives(piece: number): boolean {
    const isHashed = this.#pieces.hashes.has(piece);
    return this.#pieces.isShareable(piece) && (!isHashed || this.hashOf(piece) !== undefined);
  }

  /** What goes with a piece when it is given on. */
  hashOf(piece: number): SignedHash | undefined {
    const sha256 = this.#pieces.isShareable(piece) ? this.#pieces.hashes.get(piece) : undefined;
    const hash = this.hashes.of(piece);
    // Of signers who contradict each other another one may be believed by now than when the piece was taken.
    return sha256 !== undefined && hash !== undefined && sha256.equals(hash.sha256) ? hash : undefined;
  }

  /** A piece from upstream was read again, and has this hash. */
  sign(piece: number, sha256: Uint8Array): void {
    if (!this.#pieces.isShareable(piece) || this.#pieces.hashes.has(piece)) return;
    this.#pieces.hashes.set(piece, Buffer.from(sha256));
    this.hashes.sign(piece, sha256);
  }

  /** So that the next try knows what upstream has brought of a blob that is wrong, before that is said of it. */
  async signAll(signal: AbortSignal): Promise<void> {
    for (const piece of this.#pieces.unhashed) {
      signal.throwIfAborted();
      this.sign(piece, await this.#pieces.hashOf(piece));
    }
  }

  /** Pieces from another try that are believed by now. True when there are any. */
  recall(): boolean {
    const found = this.#pieces.recall((piece) => this.hashes.of(piece)?.sha256);
    for (const { piece, sha256 } of found) this.member.have(piece, sha256, false);
    return found.length > 0;
  }

  /** The blob has its digest: whoever signed another hash than the right one is a liar. */
  async verified(): Promise<void> {
    const { hashes, geometry, unhashed } = this.#pieces;
    // Of what nobody has signed there is nobody to be found out.
    for (const piece of unhashed.filter((one) => this.hashes.of(one) !== undefined)) {
      const sha256 = await this.#pieces.hashOf(piece).catch(() => undefined);
      if (sha256 !== undefined) hashes.set(piece, sha256);
    }
    this.member.verified(this.#allHashes());
    for (let piece = 0; piece < geometry.count; piece += 1)
      this.member.have(piece, hashes.get(piece) ?? NO_HASH, false);
  }

  /** The blob is wrong: nobody whose word was taken is believed alone, until it is known who lied. */
  mismatch(): void {
    this.member.mismatch(this.#allHashes());
  }

  /** `stored`: others may still have it here. */
  leave(stored: boolean): void {
    void this.member.leave(stored);
  }

  /** Pieces that came as a part of a long run have no hash of their own. */
  #allHashes(): (Buffer | undefined)[] {
    const { hashes, geometry } = this.#pieces;
    return Array.from({ length: geometry.count }, (_, piece) => hashes.get(piece));
  }
}
