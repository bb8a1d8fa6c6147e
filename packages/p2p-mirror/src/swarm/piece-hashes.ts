import type { Digest } from "@p2p-mirror/shared";
import { sharedOut } from "./checks.ts";
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

/** After a wrong blob a hash counts that so many have signed, until it is known who lied. */
const WITNESSES = 2;
/** Wrong blobs after which nobody else's word counts: identities are cheap for who has the cluster secret. */
const MOST_MISMATCHES = 2;

/**
 * What the pieces of a blob hash to, by whose word. A hash counts by the signature of the node that fetched the piece
 * from upstream, whoever passes it on. Signers who contradict each other are not mixed: the one with less to say is not
 * believed for this blob. Only the blob's own digest proves who was right. When it proves that somebody was not, a second
 * node must have fetched the same, until two say different things of a piece: then that piece from upstream tells who
 * lied, that one is not believed for this blob, and all others are again.
 */
export class PieceHashes implements KnownHashes {
  readonly #options: PieceHashesOptions;
  readonly #deps: PieceHashesDeps;
  readonly #known = new Map<number, SignedHash[]>();
  readonly #signed = new Map<string, number>();
  readonly #distrusted = new Set<string>();
  /** Whose word is in the wrong blob. */
  readonly #accused = new Set<string>();
  /** Signers of the same that a hash needs to count, besides those of this node. */
  #witnesses = 1;
  #mismatches = 0;
  /** Pieces that this node has signed since it started: what it says counts. From before, it is a signer as any other. */
  readonly #mine = new Set<number>();

  constructor(options: PieceHashesOptions, deps: PieceHashesDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  /** Nobody has signed anything. */
  get isEmpty(): boolean {
    return this.#known.size === 0;
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

  /** Hashes that are known may not count. */
  get doubts(): boolean {
    return this.#witnesses > 1 || this.#distrusted.size > 0;
  }

  toCheck(present: ReadonlySet<string>): number[] {
    const { id } = this.#deps.signer;
    if (this.#witnesses > WITNESSES) return [];
    const doubted = new Map<number, readonly string[]>();
    const signers = new Set<string>();
    for (const [piece, known] of this.#known) {
      const believed = known.filter((hash) => this.#isBelieved(hash));
      for (const { signer } of believed) if (signer === id || present.has(signer)) signers.add(signer);
      if (this.of(piece) !== undefined) continue;
      doubted.set(
        piece,
        known.map(({ signer }) => signer),
      );
    }
    return signers.has(id) ? sharedOut(doubted, signers, id) : [];
  }

  /** Of these hashes, by piece, at least one is wrong: they were believed, and made a wrong blob. */
  mismatch(used: readonly (Uint8Array | undefined)[]): void {
    this.#mismatches += 1;
    this.#distrusted.clear();
    this.#accused.clear();
    if (this.#mismatches >= MOST_MISMATCHES) {
      this.#witnesses = Infinity;
      // Nor its own, then: what upstream gave to this node may be what is wrong.
      if (this.#mismatches > MOST_MISMATCHES) this.#mine.clear();
      return;
    }
    this.#witnesses = WITNESSES;
    for (const [piece, known] of this.#known) {
      const taken = used[piece];
      for (const hash of known)
        if (taken !== undefined && same(hash.sha256, taken) && !this.#isMine(hash))
          this.#accused.add(hash.signer);
    }
    // Who had less to say may have been right. What upstream has told this node itself stays proven.
    for (const piece of this.#mine) this.#settle(piece);
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
    this.#witnesses = 1;
    this.#mismatches = 0;
    return [...liars];
  }

  #bytes(piece: number, sha256: Uint8Array): Buffer {
    return signedBytes(this.#options.digest, this.#options.size, piece, sha256);
  }

  #counts(hash: SignedHash): boolean {
    if (this.#isMine(hash)) return true;
    if (!this.#isBelieved(hash)) return false;
    const agree = this.#agree(hash);
    if (agree < this.#witnesses) return false;
    // After a wrong blob, of two things that are said of a piece, what more say is right only for who cannot look itself.
    return (
      this.#mismatches === 0 || agree === this.#believed(hash.piece) || (this.#mine.size === 0 && agree > 1)
    );
  }

  #isBelieved({ signer }: SignedHash): boolean {
    return !this.#distrusted.has(signer) && !this.#deps.isBanned(signer);
  }

  #believed(piece: number): number {
    return (this.#known.get(piece) ?? []).filter((hash) => this.#isBelieved(hash)).length;
  }

  /** How many that are believed have signed this. */
  #agree({ piece, sha256 }: SignedHash): number {
    const known = this.#known.get(piece) ?? [];
    return known.filter((one) => this.#isBelieved(one) && same(one.sha256, sha256)).length;
  }

  #isMine({ signer, piece }: SignedHash): boolean {
    return signer === this.#deps.signer.id && this.#mine.has(piece);
  }

  /** Signers disagree about a piece: if it is known who of them is right, the others are not believed any more. */
  #settle(piece: number): void {
    const known = (this.#known.get(piece) ?? []).filter(
      (hash) => this.#isMine(hash) || this.#isBelieved(hash),
    );
    const right = this.#rightOf(known);
    if (right === undefined || known.every((hash) => same(hash.sha256, right.sha256))) return;
    for (const { sha256, signer } of known) {
      if (same(sha256, right.sha256)) continue;
      this.#distrusted.add(signer);
      // That explains the wrong blob. If it was not all, there will be another one.
      if (this.#witnesses === WITNESSES && this.#accused.has(signer)) this.#witnesses = 1;
    }
  }

  /**
   * What this node has from upstream is right; else, what the one says who has signed more, or was first. After a wrong
   * blob nobody is right who is alone.
   */
  #rightOf(known: readonly SignedHash[]): SignedHash | undefined {
    const mine = known.find((hash) => this.#isMine(hash));
    if (mine !== undefined) return mine;
    if (this.#mismatches > 0) return known.find((hash) => this.#counts(hash));
    let [believed] = known;
    for (const hash of known)
      if (believed !== undefined && this.#weight(hash) > this.#weight(believed)) believed = hash;
    return believed;
  }

  #weight({ signer }: SignedHash): number {
    return this.#signed.get(signer) ?? 0;
  }
}
