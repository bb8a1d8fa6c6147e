import type { Readable } from "node:stream";
import type { ByteRange, Digest } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";

export interface PeerBlob {
  /** Of the whole blob, in bytes. */
  readonly size: number;
  /** Exactly the range that was asked for. The caller must consume or destroy it. */
  readonly body: Readable;
}

export interface PeerOptions {
  readonly signal?: AbortSignal | undefined;
}

/**
 * Port: the peer data plane as a client. Throws NotFoundError (the peer does not hold it), SourceError (`UNREACHABLE`
 * within the 1 s dial timeout or while the peer's breaker is open, `NO_FIRST_BYTE`, `STALLED`, `CUT`, `BUSY`).
 * Not verified: the caller does.
 */
export interface PeerClient {
  /** `range` undefined: the whole. */
  blob(peer: Peer, digest: Digest, range: ByteRange | undefined, options?: PeerOptions): Promise<PeerBlob>;

  /** Size only (HEAD). */
  stat(peer: Peer, digest: Digest, options?: PeerOptions): Promise<number>;

  /** The signed records a peer has for a tag or repository key, as JSON text of at most 64 KiB. */
  record(peer: Peer, key: string, options?: PeerOptions): Promise<string>;
}

/** `BUSY` with the nodes the peer named instead. */
export interface BusyHint {
  readonly tryInstead: readonly Peer[];
}
