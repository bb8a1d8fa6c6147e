import type { Digest } from "@p2p-mirror/shared";
import type { PieceSigner } from "./piece-signer.ts";
import type { KnownHashes, SignedHash } from "./swarm.ts";

/** Of one piece, by different signers; honest ones sign what they fetched, so there are one or two. */
const MAX_PER_PIECE = 4;

/** Signatures of the identity key for other purposes can never be taken for one of a piece. */
const signedBytes = (digest: Digest, size: number, piece: number, sha256: Uint8Array): Buffer =>
  Buffer.from(
    `p2p-mirror piece, version 1\n${digest} ${size} ${piece} ${Buffer.from(sha256).toString("hex")}`,
    "utf8",
  );

const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

export interface PieceHashesOptions {
  readonly digest: Digest;
  readonly size: number;
  readonly count: number;
}

export interface PieceHashesDeps {
  readonly signer: PieceSigner;
  /** Whose word counts for nothing any more. */
  readonly isBanned: (peer: string) => boolean;
  /** The digest of the blob proves that this peer signed a wrong hash. */
  readonly ban: (peer: string) => void;
  /** A hash was not taken: no valid signature, or its signer is banned. */
  readonly refused: (signer: string) => void;
}

/** After a wrong blob a hash counts that so many have signed, and after the second one nobody's word. */
const WITNESSES = 2;

/**
 * What the pieces of a blob hash to, by whose word. A hash counts by the signature of the node that fetched the piece
 * from upstream, whoever passes it on. Signers who contradict each other are not mixed: the one with less to say is not
 * believed for this blob. Only the blob's own digest proves who was right; when it proves that somebody was not, a second
 * node must have fetched the same, so that the next try costs upstream about one copy, not one for each node.
 */
export class PieceHashes implements KnownHashes {
  readonly #options: PieceHashesOptions;
  readonly #deps: PieceHashesDeps;
  readonly #known = new Map<number, SignedHash[]>();
  readonly #signed = new Map<string, number>();
  readonly #distrusted = new Set<string>();
  /** Signers of the same that a hash needs to count, besides those of this node. */
  #witnesses = 1;
  /** Pieces that this node has signed since it started: what it says counts. From before, it is a signer as any other. */
  readonly #mine = new Set<number>();

  constructor(options: PieceHashesOptions, deps: PieceHashesDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  /** Signs the hash of a piece that this node has from upstream. */
  sign(piece: number, sha256: Uint8Array): void {
    const { signer } = this.#deps;
    const before = this.#known.get(piece) ?? [];
    if (before.some((hash) => hash.signer === signer.id && same(hash.sha256, sha256))) return;
    const signature = signer.sign(this.#bytes(piece, sha256));
    this.#mine.add(piece);
    this.#known.set(piece, [
      { piece, sha256, signer: signer.id, signature },
      ...before.filter((hash) => hash.signer !== signer.id),
    ]);
    this.#settle(piece);
  }

  /** Takes a hash that came from another node. False: it is new and not valid, or of a banned signer. */
  learn(hash: SignedHash): boolean {
    const { signer, isBanned, refused } = this.#deps;
    if (hash.piece >= this.#options.count) return false;
    const known = this.#known.get(hash.piece) ?? [];
    if (known.some((one) => one.signer === hash.signer && same(one.sha256, hash.sha256))) return true;
    if (known.some((one) => one.signer === hash.signer) || known.length >= MAX_PER_PIECE) return false;
    if (
      isBanned(hash.signer) ||
      !signer.verify(hash.signer, this.#bytes(hash.piece, hash.sha256), hash.signature)
    ) {
      refused(hash.signer);
      return false;
    }
    // A copy: what comes from a message is a view of the chunk it came in.
    const [sha256, signature] = [Uint8Array.from(hash.sha256), Uint8Array.from(hash.signature)];
    this.#known.set(hash.piece, [...known, { ...hash, sha256, signature }]);
    this.#signed.set(hash.signer, (this.#signed.get(hash.signer) ?? 0) + 1);
    this.#settle(hash.piece);
    return true;
  }

  /** The hash that counts, to check a piece against and to pass on: the newest, which others are least likely to know. */
  of(piece: number): SignedHash | undefined {
    const known = this.#known.get(piece) ?? [];
    return known.find((hash) => this.#isMine(hash)) ?? known.findLast((hash) => this.#counts(hash));
  }

  isDoubted(piece: number): boolean {
    return this.#known.has(piece) && this.of(piece) === undefined;
  }

  /** Hashes that were believed made a wrong blob. */
  mismatch(): void {
    if (this.#witnesses < WITNESSES) {
      this.#witnesses = WITNESSES;
      return;
    }
    const used = new Set<string>();
    for (let piece = 0; piece < this.#options.count; piece += 1) {
      const hash = this.of(piece);
      if (hash !== undefined && !this.#isMine(hash)) used.add(hash.signer);
    }
    for (const signer of used) this.#distrusted.add(signer);
  }

  /** The blob is verified: whoever signed anything else is banned, and nobody else. Returns them. */
  verified(hashes: readonly (Uint8Array | undefined)[]): string[] {
    const liars = new Set<string>();
    for (const [piece, known] of this.#known) {
      const right = hashes[piece];
      for (const { signer, sha256 } of known) {
        if (right !== undefined && !same(sha256, right) && signer !== this.#deps.signer.id) liars.add(signer);
      }
    }
    for (const liar of liars) this.#deps.ban(liar);
    return [...liars];
  }

  #bytes(piece: number, sha256: Uint8Array): Buffer {
    return signedBytes(this.#options.digest, this.#options.size, piece, sha256);
  }

  #counts(hash: SignedHash): boolean {
    if (this.#isMine(hash)) return true;
    return this.#isBelieved(hash) && this.#agree(hash) >= this.#witnesses;
  }

  #isBelieved({ signer }: SignedHash): boolean {
    return !this.#distrusted.has(signer) && !this.#deps.isBanned(signer);
  }

  /** How many that are believed have signed this. */
  #agree({ piece, sha256 }: SignedHash): number {
    const known = this.#known.get(piece) ?? [];
    return known.filter((one) => this.#isBelieved(one) && same(one.sha256, sha256)).length;
  }

  #isMine({ signer, piece }: SignedHash): boolean {
    return signer === this.#deps.signer.id && this.#mine.has(piece);
  }

  /** Of signers who disagree about a piece one is believed: this node, else who has signed more, else who was first. */
  #settle(piece: number): void {
    // Then the others who say the same decide, piece by piece: a liar must not have somebody distrusted by a contradiction.
    if (this.#witnesses > 1) return;
    const counting = (this.#known.get(piece) ?? []).filter((hash) => this.#counts(hash));
    let believed = counting[0];
    if (believed === undefined) return;
    for (const hash of counting) if (this.#weight(hash) > this.#weight(believed)) believed = hash;
    for (const hash of counting) if (!same(hash.sha256, believed.sha256)) this.#distrusted.add(hash.signer);
  }

  #weight(hash: SignedHash): number {
    return this.#isMine(hash) ? Infinity : (this.#signed.get(hash.signer) ?? 0);
  }
}
