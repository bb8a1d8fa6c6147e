import type { Readable } from "node:stream";
import type { ByteRange, Descriptor, Digest, Repository } from "@p2p-mirror/shared";

export interface UpstreamOptions {
  readonly signal?: AbortSignal | undefined;
}

/** A manifest as upstream gave it; `bytes` match `descriptor.digest` and `descriptor.size`. */
export interface UpstreamManifest {
  readonly descriptor: Descriptor;
  readonly bytes: Uint8Array;
}

export interface UpstreamBlob {
  /** The whole blob's size; undefined when upstream does not say (chunked). */
  readonly size: number | undefined;
  /** What `body` holds: from `start` (0 when upstream ignored the range) to the end that was asked for. */
  readonly start: number;
  /** The caller must consume or destroy it. Ends early with SourceError (`CUT`, `STALLED`); never longer than announced. */
  readonly body: Readable;
}

/** A list answer, handed through: OCI `tags/list` or a referrers index. */
export interface UpstreamList {
  readonly contentType: string;
  readonly body: Uint8Array;
  /** The Link header's target with paging, as path and query, when there is more. */
  readonly next: string | undefined;
  /** OCI-Filters-Applied, for referrers. */
  readonly filtersApplied: string | undefined;
}

/**
 * Port: the registries behind the mirror. All methods throw NotFoundError (404), or SourceError (`DENIED` for 401 and 403
 * to the credentials this node has, `RATE_LIMITED` with `retryAfterMs`, `UNREACHABLE`, `NO_FIRST_BYTE`, `STATUS`).
 * Tokens, redirects, retries within the first byte, and rate limits are its own business.
 */
export interface Upstream {
  /** HEAD of a manifest by tag: no registry counts it against the rate limit. */
  resolve(repository: Repository, tag: string, options?: UpstreamOptions): Promise<Descriptor>;

  /** GET of a manifest by digest, or by tag where HEAD gave too little. At most 4 MiB. */
  manifest(repository: Repository, reference: string, options?: UpstreamOptions): Promise<UpstreamManifest>;

  /** Size of a blob, by HEAD. */
  blobSize(repository: Repository, digest: Digest, options?: UpstreamOptions): Promise<number>;

  /** A blob, or `range` of it. Not verified: the caller does, over all pieces. */
  blob(
    repository: Repository,
    digest: Digest,
    range: ByteRange | undefined,
    options?: UpstreamOptions,
  ): Promise<UpstreamBlob>;

  /** False while the registry does not answer: it is then tried again every few seconds only. Asks nobody. */
  reachable(registry: string): boolean;

  tags(
    repository: Repository,
    query: { n?: number; last?: string },
    options?: UpstreamOptions,
  ): Promise<UpstreamList>;

  referrers(
    repository: Repository,
    digest: Digest,
    query: { artifactType?: string },
    options?: UpstreamOptions,
  ): Promise<UpstreamList>;

  /**
   * Whether an anonymous client may pull from the repository: asked at upstream without any credentials, remembered for
   * minutes. Throws like the others when upstream cannot say now. `probe`: what the request under way wants; with it the
   * answer is right also for registries that do not list tags to everybody.
   */
  isPublic(
    repository: Repository,
    options?: UpstreamOptions & {
      readonly probe?: { readonly manifest: string } | { readonly blob: Digest } | undefined;
    },
  ): Promise<boolean>;
}
