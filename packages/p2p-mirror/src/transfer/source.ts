import type { Readable } from "node:stream";
import type { ByteRange, Digest, Repository } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";

export interface FetchOptions {
  readonly signal: AbortSignal;
  /** Of the whole blob. */
  readonly size: number;
  /** The source is given up after so many milliseconds without a byte; short while another source exists. */
  readonly stallMs: number;
  /** To the first byte; default: the source's own limit. */
  readonly firstByteMs?: number | undefined;
}

export interface FetchedBody {
  /** Where `body` begins: the start that was asked for, or 0 when the source knows no ranges. */
  readonly start: number;
  /** The whole blob's size, when the source said it. */
  readonly size: number | undefined;
  /** The flight consumes or destroys it. */
  readonly body: Readable;
}

/** Somebody who can be asked for an object. */
export interface Source {
  readonly kind: "peer" | "upstream";
  /** For logs and metrics: a peer ID, or registry/repository. */
  readonly id: string;
  /** Of kind `peer`: who it is. */
  readonly peer?: Peer;
  /** False when asking it now would be in vain, as far as is known without asking. */
  readonly available: boolean;
  /** Nobody says that it has the object; it had the manifest that names it. */
  readonly guessed?: boolean;
  /** What it delivered is not what the digest says. */
  refuted(): void;
}

/** Somewhere a flight gets bytes from. */
export interface BlobSource extends Source {
  /** Throws NotFoundError or SourceError; nothing it delivers is verified. */
  fetch(range: ByteRange, options: FetchOptions): Promise<FetchedBody>;
}

/** Port: where the flight of a digest finds its sources. */
export interface SourceFinder {
  /** Complete holders, as they become known, after who is guessed to be one; ends when the lookup does. */
  peers(digest: Digest, signal: AbortSignal): AsyncIterable<BlobSource>;
  /** A peer that somebody named as a holder. */
  peer(peer: Peer, digest: Digest): BlobSource;
  upstream(repository: Repository, digest: Digest): BlobSource;
}
