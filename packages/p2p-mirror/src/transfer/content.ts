import type { Readable } from "node:stream";
import type { ByteRange, Descriptor, Digest, Repository } from "@p2p-mirror/shared";
import type { SignedHash } from "../swarm/swarm.ts";
import type { UpstreamList } from "../upstream/upstream.ts";

/** Where the bytes of an answer came from; the `source` label of the metrics. */
export type SourceKind = "cache" | "containerd" | "peer" | "upstream";

export interface ContentOptions {
  /** Aborts when the client is gone. It ends this request only, never a flight that others read. */
  readonly signal: AbortSignal;
}

export interface ResolvedTag {
  readonly descriptor: Descriptor;
  /** True when upstream could not be asked and a record of the cluster counted. */
  readonly stale: boolean;
}

export interface ManifestContent {
  readonly descriptor: Descriptor;
  readonly bytes: Uint8Array;
  readonly source: SourceKind;
}

export interface BlobContent {
  readonly size: number;
  /** Of the first source; a flight may use several, counted by bytes in the metrics. */
  readonly source: SourceKind;
  /**
   * Bytes `[start, end)`. The last of them comes only after the whole blob's digest was verified. When every source is
   * lost, the stream errors short of the end: the endpoint then ends the connection with FIN, never RST.
   */
  open(range: ByteRange, options: ContentOptions): Promise<Readable>;
}

/**
 * What the endpoints ask: any object of any repository, wherever it is. All methods throw NotFoundError when there is no
 * hope (decline at once), SourceError or AllSourcesFailedError when the sources failed, and wait without answering
 * while there is hope, 45 s at most (facts: a 404 then would send every node upstream by itself).
 */
export interface Content {
  resolveTag(repository: Repository, tag: string, options: ContentOptions): Promise<ResolvedTag>;
  manifest(repository: Repository, digest: Digest, options: ContentOptions): Promise<ManifestContent>;
  /** Size of a blob that can be had, for HEAD: nothing is fetched for it. */
  blobSize(
    repository: Repository,
    digest: Digest,
    options: ContentOptions,
  ): Promise<{ size: number; source: SourceKind }>;
  /**
   * For GET: resolves when a source has accepted and the size is known; nothing is given out until `open`. `start`: the
   * first byte that is wanted, as far as it is known.
   */
  blob(
    repository: Repository,
    digest: Digest,
    options: ContentOptions & { readonly start?: number },
  ): Promise<BlobContent>;
  tags(
    repository: Repository,
    query: { n?: number; last?: string },
    options: ContentOptions,
  ): Promise<UpstreamList>;
  referrers(
    repository: Repository,
    digest: Digest,
    query: { artifactType?: string },
    options: ContentOptions,
  ): Promise<UpstreamList>;
}

/** A piece that is here, as PieceGeometry cuts the blob. */
export interface PieceContent {
  /** In bytes. */
  readonly length: number;
  /** Of exactly the bytes that `open` gives. */
  readonly hash: SignedHash;
  /** The whole piece. Throws NotFoundError or IntegrityError when it is not here any more, or proves wrong. */
  open(options: ContentOptions): Promise<Readable>;
}

/** A piece that is here, though its hash may not be known yet. */
export interface PieceHere extends Omit<PieceContent, "hash"> {
  readonly hash: SignedHash | undefined;
  /** It was read, and is this: signs it. */
  sign(sha256: Uint8Array): void;
}

/**
 * What this node can give to its peers: complete blobs of its stores, pieces of these and of what it is fetching, and its
 * own signed records.
 */
export interface LocalContent {
  blob(digest: Digest, options: ContentOptions): Promise<BlobContent | undefined>;
  /** Undefined: it is not here (yet), or the blob has another size than `size` bytes here. May take a read of the piece. */
  piece(
    digest: Digest,
    size: number,
    piece: number,
    options: ContentOptions,
  ): Promise<PieceContent | undefined>;
  record(key: string): string | undefined;
}
