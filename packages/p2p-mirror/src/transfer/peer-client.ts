import type { Readable } from "node:stream";
import { SourceError, type ByteRange, type Digest } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import type { SignedHash } from "../swarm/swarm.ts";

export interface PeerBlob {
  /** Of the whole blob, in bytes. */
  readonly size: number;
  /** Exactly the range that was asked for. The caller must consume or destroy it. */
  readonly body: Readable;
  /** Share of the peer's upload slots that were taken when it answered, 0 to 1; undefined when it did not say. */
  readonly load?: number | undefined;
}

/** A piece as PieceGeometry cuts the blob. */
export interface WantedPiece {
  /** Of the whole blob, in bytes; a peer that knows another one does not have the piece. */
  readonly size: number;
  readonly piece: number;
  /** Of the piece, in bytes. */
  readonly length: number;
}

export interface PeerPiece {
  /** Exactly `length` bytes, or it ends in SourceError. The caller must consume or destroy it. */
  readonly body: Readable;
  /**
   * By whose word the piece hashes to what: on the wire well-formed, its signature is not checked here. Undefined when
   * the peer sent none, or something else.
   */
  readonly hash: SignedHash | undefined;
  /** As of PeerBlob. */
  readonly load: number | undefined;
}

export interface PeerOptions {
  readonly signal?: AbortSignal | undefined;
  /**
   * Only while another source exists: milliseconds within which the peer must send a minimum of bytes (16 KiB by
   * default, a setting of the client), else `STALLED`. Undefined: this is the last source, and only 30 s without a
   * single byte end it. Time in which the caller does not read is not counted.
   */
  readonly stallMs?: number | undefined;
  /** From the request on the wire to the head of the answer, in milliseconds; default 3,000. */
  readonly firstByteMs?: number | undefined;
}

/**
 * Port: the peer data plane as a client. Throws NotFoundError (the peer does not hold it), SourceError (`UNREACHABLE`
 * within the 1 s dial timeout or while the peer's breaker is open, `NO_FIRST_BYTE`, `STALLED`, `CUT`, `STATUS` for what
 * is no answer to the request), BusyError. Not verified: the caller does.
 */
export interface PeerClient {
  /** `range` undefined: the whole. The body ends in SourceError (`STALLED`, `CUT`) when the peer does not deliver. */
  blob(peer: Peer, digest: Digest, range: ByteRange | undefined, options?: PeerOptions): Promise<PeerBlob>;

  /** One piece, also of a blob that the peer is still fetching. NotFoundError: it is not there (yet), or of another size. */
  piece(peer: Peer, digest: Digest, wanted: WantedPiece, options?: PeerOptions): Promise<PeerPiece>;

  /** Size only (HEAD). */
  stat(peer: Peer, digest: Digest, options?: PeerOptions): Promise<number>;

  /** The signed records a peer has for a tag or repository key, as JSON text of at most 64 KiB. */
  record(peer: Peer, key: string, options?: PeerOptions): Promise<string>;
}

/** The peer has no free upload slot (or this node no free connection to it): nobody's fault. */
export class BusyError extends SourceError {
  /** The nodes it named instead. */
  readonly tryInstead: readonly Peer[];

  constructor(source: string, tryInstead: readonly Peer[] = [], message = "no free upload slot") {
    super("BUSY", source, { message });
    this.tryInstead = tryInstead;
  }
}

/**
 * Why a caller aborts a body: the peer brings next to nothing while another source could take over. Unlike any other
 * abort it counts against the peer, as a stall.
 */
export class TooSlowError extends SourceError {
  constructor(source: string) {
    super("STALLED", source, { message: "brought next to nothing" });
  }
}
