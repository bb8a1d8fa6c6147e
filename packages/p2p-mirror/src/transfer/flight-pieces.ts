import { createHash } from "node:crypto";
import { IntegrityError, joinParts, slicesOf, type ByteRange, type Digest } from "@p2p-mirror/shared";
import { PassingHashes } from "./passing-hashes.ts";
import { Picker, type Run } from "./picker.ts";
import { PieceGeometry, PieceMap } from "./pieces.ts";
import { PrefixHash } from "./prefix-hash.ts";
import type { BlobSource } from "./source.ts";
import { READ_BYTES, type Spool } from "./spool.ts";
import { Unwritten } from "./unwritten.ts";

/** How far ahead a reader looks for bytes that are there. */
const LOOK_AHEAD_PIECES = 8;

/** One peer gave all of a piece, with this hash. */
export interface Testimony {
  readonly piece: number;
  readonly peer: BlobSource;
  readonly sha256: Buffer;
}

/** Who gives pieces on before the blob is complete. */
export interface PieceSharing {
  /**
   * There are others: what upstream brings is hashed as it comes. Else it would be for nobody, and cost as much as the hash
   * of the whole; a piece that is wanted later is read again.
   */
  readonly wanted: boolean;
  /** A piece from upstream is here. */
  here(piece: number, sha256: Buffer | undefined): void;
}

/** What a flight has of its blob: pieces, the bytes of the pieces under way, who they came from, and the hash. */
export class FlightPieces {
  readonly geometry: PieceGeometry;
  readonly picker: Picker;
  /** Bytes written, twice written ones counted twice. */
  received = 0;
  /** The sha256 of pieces that others may have (see `isShareable`), as far as somebody has needed it. */
  readonly hashes = new Map<number, Buffer>();
  /** Set while others may want pieces of a blob that is not complete. */
  sharing: PieceSharing | undefined;

  readonly #digest: Digest;
  readonly #spool: Spool;
  readonly #onMore: () => void;
  readonly #unwritten = new Unwritten();
  readonly #hash: PrefixHash;
  readonly #done: PieceMap;
  /** Pieces with at least one byte from a peer, and from which; undefined: from several. */
  readonly #fromPeers = new Map<number, BlobSource | undefined>();
  readonly #peers = new Set<BlobSource>();
  /** Of pieces that upstream is sending. */
  readonly #hashing: PassingHashes;
  /** Pieces that were taken by a signed hash. */
  #signed = 0;
  /** Pieces that are not complete: the offset up to which their bytes are here. */
  readonly #filled = new Map<number, number>();
  /** First piece that is not complete. */
  #front = 0;
  #givenOut = false;
  /** In the spool from a try that ended in a wrong blob, with what they hash to: some of them are right. */
  readonly #left: Map<number, Buffer>;

  /**
   * `onMore`: bytes behind a hole were read back and hashed, so that what waits for room in the spool may have it now; or
   * readers may have what was held back. `left`: hashes of what is in the spool from another try.
   */
  constructor(
    { digest, size, left }: { digest: Digest; size: number; left?: ReadonlyMap<number, Buffer> | undefined },
    spool: Spool,
    onMore: () => void,
  ) {
    this.#digest = digest;
    this.#left = new Map(left);
    this.geometry = new PieceGeometry(size);
    this.#hashing = new PassingHashes(this.geometry);
    this.#spool = spool;
    this.#onMore = onMore;
    this.#hash = new PrefixHash(digest, spool);
    this.#done = new PieceMap(this.geometry.count);
    this.picker = new Picker(this.geometry, this.#done);
  }

  /** Peers' bytes wait for the digest of the whole. Where there is no room for that, they cannot. */
  get heldBack(): boolean {
    return !this.#givenOut && this.geometry.size <= this.#spool.room;
  }

  /** They have waited long enough. */
  giveOut(): void {
    this.#givenOut = true;
    this.#onMore();
  }

  /** The byte is here, and waits for the digest of the whole. */
  isHeldBack(offset: number): boolean {
    const piece = this.geometry.at(offset);
    return (
      this.heldBack && this.#fromPeers.has(piece) && (this.#done.has(piece) || this.filledTo(piece) > offset)
    );
  }

  get complete(): boolean {
    return this.#done.complete;
  }

  get hashed(): number {
    return this.#hash.size;
  }

  /** Where the bytes of a piece that is not complete end. */
  filledTo(piece: number): number {
    return this.#filled.get(piece) ?? this.geometry.start(piece);
  }

  /** A chunk of a run is here and will be written. True when readers may have it at once. */
  arrived(
    offset: number,
    chunk: Buffer,
    peer: BlobSource | undefined,
    recycle: ((chunk: Buffer) => void) | undefined,
  ): boolean {
    const end = offset + chunk.length;
    // Of a piece that is here readers get what is in the spool: it was checked, or will be.
    const isNew = this.#missing(offset, end).some((part) => part.start === offset && part.end === end);
    const released = isNew && (peer === undefined || !this.heldBack);
    this.#unwritten.add(offset, chunk, released, recycle);
    return released;
  }

  /** Up to `max` bytes from `offset` that readers may have although they are not written yet. */
  fresh(offset: number, max: number): Buffer | undefined {
    return this.#unwritten.get(offset, max);
  }

  /** A reader has no use any more for what `fresh` gave. */
  recycle(chunk: Uint8Array): void {
    this.#unwritten.recycle(chunk);
  }

  get usedSignedHashes(): boolean {
    return this.#signed > 0;
  }

  isDone(piece: number): boolean {
    return this.#done.has(piece);
  }

  get map(): PieceMap {
    return this.#done;
  }

  /** Others may have it: from upstream, or taken by a signed hash. What came by a peer's word alone is not given on. */
  isShareable(piece: number): boolean {
    return this.#done.has(piece) && !this.#fromPeers.has(piece);
  }

  /** Of pieces from upstream that nobody has needed the hash of. */
  get unhashed(): number[] {
    const all = Array.from({ length: this.geometry.count }, (_, piece) => piece);
    return all.filter((piece) => this.isShareable(piece) && !this.hashes.has(piece));
  }

  /** Chunks that arrived and will not be written: nobody is to read them. */
  lost(offset: number, chunks: readonly Buffer[]): void {
    this.#unwritten.remove(offset, chunks);
  }

  /** Bytes of a piece that counts for nothing until `take`. */
  async writeUnchecked(offset: number, parts: readonly Buffer[]): Promise<void> {
    this.#left.delete(this.geometry.at(offset));
    await this.#spool.writeUnchecked(offset, parts);
  }

  /** What a source began to bring of a piece is forgotten; it comes anew, as a whole. */
  restart(piece: number): void {
    this.#filled.delete(piece);
    this.#hashing.forget(piece);
  }

  /** All of a piece is written and has the hash that somebody has signed. */
  take(piece: number, sha256: Buffer): void {
    this.received += this.geometry.length(piece);
    this.hashes.set(piece, sha256);
    this.#signed += 1;
    this.#filled.delete(piece);
    this.#fromPeers.delete(piece);
    this.#done.set(piece);
    this.#advance();
  }

  /** What is here from another try counts as soon as its hash does. Returns these pieces, each once. */
  recall(hashOf: (piece: number) => Uint8Array | undefined): { piece: number; sha256: Buffer }[] {
    const found: { piece: number; sha256: Buffer }[] = [];
    for (const [piece, sha256] of this.#left) {
      const right = hashOf(piece);
      // One that is being fetched is written over.
      if (right === undefined || !sha256.equals(right) || !this.picker.isFree(piece)) continue;
      this.#left.delete(piece);
      if (this.#done.has(piece)) continue;
      this.take(piece, sha256);
      found.push({ piece, sha256 });
    }
    return found;
  }

  /** Writes chunks of a run and marks what they complete; pieces that are here stay as they are. Returns how many bytes are new. */
  async write(
    run: Run,
    offset: number,
    buffers: readonly Buffer[],
    peer: BlobSource | undefined,
  ): Promise<number> {
    const end = offset + buffers.reduce((sum, buffer) => sum + buffer.length, 0);
    let bytes = 0;
    try {
      for (const part of this.#missing(offset, end)) {
        await this.#store(part, slicesOf(buffers, part.start - offset, part.end - offset), peer);
        bytes += part.end - part.start;
      }
    } finally {
      this.#unwritten.remove(offset, buffers);
    }
    this.received += bytes;
    if (peer !== undefined) this.#peers.add(peer);
    for (let piece = this.geometry.at(offset); piece < this.geometry.count; piece += 1) {
      if (this.geometry.start(piece) >= end) break;
      const isWhole = end >= this.geometry.end(piece);
      if (isWhole) run.next = Math.max(run.next, piece + 1);
      if (this.#done.has(piece)) continue;
      if (peer !== undefined) this.#from(piece, peer, offset);
      if (isWhole) {
        this.#done.set(piece);
        this.#filled.delete(piece);
        if (peer === undefined) this.#tell(piece);
      } else {
        this.#filled.set(piece, end);
      }
    }
    this.#advance();
    return bytes;
  }

  async #store(
    { start, end }: ByteRange,
    buffers: readonly Buffer[],
    peer: BlobSource | undefined,
  ): Promise<void> {
    const parts = joinParts(buffers);
    this.#forgetLeft(start, end);
    await this.#spool.write(start, parts);
    // Only what is in the spool counts: bytes of a write that failed come again, maybe from somebody else.
    this.#hash.offer(start, parts);
    if (peer === undefined && this.sharing !== undefined)
      this.#hashing.add(start, parts, this.sharing.wanted);
  }

  /** What belongs to pieces that are not here. */
  #missing(start: number, end: number): ByteRange[] {
    const found: { start: number; end: number }[] = [];
    for (let at = start; at < end;) {
      const piece = this.geometry.at(at);
      const to = Math.min(end, this.geometry.end(piece));
      const last = found.at(-1);
      if (!this.#done.has(piece)) {
        if (last?.end === at) last.end = to;
        else found.push({ start: at, end: to });
      }
      at = to;
    }
    return found;
  }

  /** Who began a piece alone, and goes on with it, has given all of it. */
  #from(piece: number, peer: BlobSource, offset: number): void {
    const begins = offset <= this.geometry.start(piece);
    this.#fromPeers.set(piece, begins || this.#fromPeers.get(piece) === peer ? peer : undefined);
  }

  /** What peers gave, as far as it is known which: the sha256 of what is here of each of their pieces. */
  async testimony(signal: AbortSignal): Promise<Testimony[]> {
    const said: Testimony[] = [];
    for (const [piece, peer] of this.#fromPeers) {
      signal.throwIfAborted();
      if (peer !== undefined) said.push({ piece, peer, sha256: await this.hashOf(piece) });
    }
    return said;
  }

  /** The sha256 of a piece as it is in the spool. */
  hashOf(piece: number): Promise<Buffer> {
    return this.hashFrom(this.geometry.start(piece), this.geometry.end(piece));
  }

  /** Written over: not what it was any more. */
  #forgetLeft(start: number, end: number): void {
    if (this.#left.size === 0 || start === end) return;
    for (let piece = this.geometry.at(start); piece <= this.geometry.at(end - 1); piece += 1)
      this.#left.delete(piece);
  }

  #advance(): void {
    while (this.#front < this.geometry.count && this.#done.has(this.#front)) this.#front += 1;
    // Only behind a hole; what comes in order was hashed as it was written.
    if (this.#hash.size < this.#frontier()) this.#catchUp();
  }

  #tell(piece: number): void {
    // Undefined also when there was nobody else as it began.
    const sha256 = this.#hashing.take(piece);
    if (this.#fromPeers.has(piece)) return;
    if (sha256 !== undefined) this.hashes.set(piece, sha256);
    this.sharing?.here(piece, sha256);
  }

  /** The sha256 of bytes that are in the spool. */
  async hashFrom(start: number, end: number): Promise<Buffer> {
    const hash = createHash("sha256");
    for (let at = start; at < end;) {
      const chunk = await this.#spool.read(at, Math.min(READ_BYTES, end - at));
      hash.update(chunk);
      at += chunk.length;
      this.#spool.recycle(chunk);
    }
    return hash.digest();
  }

  /** Every byte below `offset` is here. */
  isFront(offset: number): boolean {
    return offset <= this.#frontier();
  }

  /** One past the last byte from `offset` on that is here and may be given out. */
  releasable(offset: number, verified: boolean): number {
    let piece = this.geometry.at(offset);
    let end = offset;
    for (let looked = 0; looked < LOOK_AHEAD_PIECES && piece < this.geometry.count; looked += 1, piece += 1) {
      if (!verified && this.heldBack && this.#fromPeers.has(piece)) break;
      if (!this.#done.has(piece)) return Math.max(end, this.filledTo(piece));
      end = this.geometry.end(piece);
    }
    return end;
  }

  /** Hashes the rest and compares; `peers` are those that delivered any of it. All pieces must be here. */
  async verify(): Promise<{ readonly error: IntegrityError | undefined; readonly peers: BlobSource[] }> {
    while (this.#hash.size < this.geometry.size) await this.#hash.catchUp(() => this.geometry.size);
    const { ok, found } = this.#hash.finish();
    const peers = [...this.#peers];
    const from = peers.length === 0 ? "upstream" : peers.map(({ id }) => id).join(", ");
    return {
      error: ok ? undefined : new IntegrityError("DIGEST_MISMATCH", this.#digest, found, from),
      peers,
    };
  }

  /**
   * Forgets every piece with bytes from peers: they are fetched again. A window of memory is emptied whole, since it does
   * not write over. False when that cannot be: what is gone from the window was given out and cannot be hashed again.
   */
  discardFromPeers(): boolean {
    const { windowed, base } = this.#spool;
    if (windowed && base > 0) return false;
    this.#spool.discard();
    for (let piece = 0; piece < this.geometry.count; piece += 1) {
      if (!windowed && !this.#fromPeers.has(piece)) continue;
      this.#fromPeers.delete(piece);
      this.#done.clear(piece);
      this.#filled.delete(piece);
      this.hashes.delete(piece);
    }
    this.#peers.clear();
    this.#front = 0;
    while (this.#front < this.geometry.count && this.#done.has(this.#front)) this.#front += 1;
    this.#catchUp();
    return true;
  }

  #catchUp(): void {
    this.#hash
      .catchUp(() => this.#frontier())
      .then(this.#onMore)
      // It is tried again with the next bytes, and the last try is the verification, which tells.
      .catch(() => undefined);
  }

  #frontier(): number {
    return this.#front === this.geometry.count ? this.geometry.size : this.filledTo(this.#front);
  }
}
