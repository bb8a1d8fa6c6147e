import type { Logger } from "@p2p-mirror/shared";
import type { Candidates } from "./candidates.ts";
import type { FlightMember } from "./flight-member.ts";
import type { FlightPieces, Testimony } from "./flight-pieces.ts";
import type { BlobSource } from "./source.ts";

/** A source that broke off is followed by another, and then two shared the work again: so often at most. */
const MAX_SHARED = 4;

export interface VerificationDeps {
  readonly pieces: FlightPieces;
  readonly candidates: Pick<Candidates, "suspect" | "drop">;
  readonly member: Pick<FlightMember, "mismatch" | "signAll"> | undefined;
  /** The flight has ended. */
  readonly signal: AbortSignal;
  readonly logger: Logger;
}

/** Compares the whole blob with its digest, and finds out who is to blame where it is another. */
export class Verification {
  readonly #deps: VerificationDeps;
  /** Some of what is here is wrong by the word of signers; or it may be, while what peers gave is dropped first. */
  #isRefuted = false;
  #isSuspect = false;
  /** What each of several gave of a wrong blob; some of it is wrong. */
  readonly #testimony: Testimony[] = [];
  readonly #liars = new Set<string>();
  /** Wrong blobs that several had shared. */
  #shared = 0;

  constructor(deps: VerificationDeps) {
    this.#deps = deps;
  }

  /** The flight ended in a wrong blob, of which the next one can find out what is wrong. */
  get isRefuted(): boolean {
    return this.#isRefuted;
  }

  /** Peers' bytes were dropped as wrong, and it may be what signers said that is. */
  get isSuspect(): boolean {
    return this.#isSuspect;
  }

  /** True when the whole is right. False when it is not, but only bytes from peers that nobody has seen are wrong. */
  async verify(): Promise<boolean> {
    const { pieces, candidates, logger, signal } = this.#deps;
    const { error, peers } = await pieces.verify();
    if (error === undefined) return true;
    logger.warn({ err: error }, "a blob does not match its digest");
    const shared = peers.length > 1 && pieces.heldBack;
    if (shared) this.#testimony.push(...(await pieces.testimony(signal)));
    // Of several that shared the work one lied: next upstream brings it, or else each alone.
    if (shared && this.#shared++ < MAX_SHARED) {
      for (const peer of peers) candidates.suspect(peer);
      if (this.#repeat()) return false;
    }
    for (const peer of peers) {
      // Where pieces were taken by signed hashes, too, it may be these that are wrong.
      if (!shared && !pieces.usedSignedHashes) this.#convict(peer);
      candidates.drop(peer);
    }
    if (peers.length > 0 && this.#repeat()) return false;
    // Readers have what was taken by signed hashes: this pull fails, the next one finds out who lied.
    if (peers.length === 0 && pieces.usedSignedHashes) {
      await this.#signOwn();
      this.#refute();
    }
    throw error;
  }

  /** The whole is right: whoever gave something else before is refuted. */
  async judge(): Promise<void> {
    const { pieces, signal } = this.#deps;
    for (const { piece, peer, sha256 } of this.#testimony) {
      signal.throwIfAborted();
      if (!this.#liars.has(peer.id) && !sha256.equals(await pieces.hashOf(piece))) this.#convict(peer);
    }
  }

  #convict(peer: BlobSource): void {
    if (!this.#liars.has(peer.id)) peer.refuted();
    this.#liars.add(peer.id);
  }

  /** The flight fails for want of sources. */
  giveUp(): void {
    if (this.#isSuspect) this.#refute();
  }

  /** Bytes that nobody has seen, by a peer's word alone, are what is most likely wrong, and come again. */
  #repeat(): boolean {
    const { pieces } = this.#deps;
    if (!pieces.heldBack || !pieces.discardFromPeers()) return false;
    this.#isSuspect ||= pieces.usedSignedHashes;
    return true;
  }

  async #signOwn(): Promise<void> {
    const { member, signal, logger } = this.#deps;
    await member?.signAll(signal).catch((error: unknown) => {
      logger.warn({ err: error }, "what upstream has brought of a wrong blob is fetched again");
    });
  }

  /** What was taken by the word of signers may be what is wrong. */
  #refute(): void {
    this.#isRefuted = true;
    this.#deps.member?.mismatch();
  }
}
