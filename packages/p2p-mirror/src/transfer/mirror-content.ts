import type { Readable } from "node:stream";
import {
  AllSourcesFailedError,
  linkSignal,
  MEDIA_TYPES,
  NotFoundError,
  raceSignal,
  SourceError,
  type ByteRange,
  type Digest,
  type Repository,
} from "@p2p-mirror/shared";
import type { Catalog } from "../store/catalog.ts";
import type { ContentStore } from "../store/content-store.ts";
import type { Upstream, UpstreamList } from "../upstream/upstream.ts";
import type {
  BlobContent,
  Content,
  ContentOptions,
  ManifestContent,
  ResolvedTag,
  SourceKind,
} from "./content.ts";
import type { Flight } from "./flight.ts";
import type { Flights } from "./flights.ts";
import { heldReferrers, heldTags } from "./held-lists.ts";
import type { Manifests } from "./manifests.ts";
import type { MirrorSources } from "./mirror-sources.ts";
import type { PeerClient } from "./peer-client.ts";
import { smallBlob } from "./small-blobs.ts";
import { SMALL_BYTES, type SmallObjects } from "./small-objects.ts";
import { storedBlob } from "./stored-blob.ts";
import type { Tags } from "./tags.ts";

/** How long peers are asked for the size of a blob that no manifest has named here. */
const SIZE_PATIENCE_MS = 1_000;

export interface MirrorContentDeps {
  /** In the order they are asked: what is cheapest to read first. */
  readonly stores: readonly ContentStore[];
  readonly catalog: Catalog;
  readonly flights: Flights;
  readonly small: SmallObjects;
  readonly manifests: Manifests;
  readonly tags: Tags;
  readonly sources: MirrorSources;
  readonly peerClient: PeerClient;
  readonly upstream: Upstream;
}

/** Any object of any repository: from a store of this node, or by a flight. */
export class MirrorContent implements Content {
  readonly #deps: MirrorContentDeps;

  constructor(deps: MirrorContentDeps) {
    this.#deps = deps;
  }

  resolveTag(repository: Repository, tag: string, options: ContentOptions): Promise<ResolvedTag> {
    return this.#deps.tags.resolve(repository, tag, options);
  }

  manifest(repository: Repository, digest: Digest, options: ContentOptions): Promise<ManifestContent> {
    return this.#deps.manifests.get(repository, digest, options);
  }

  async blob(
    repository: Repository,
    digest: Digest,
    options: ContentOptions & { readonly start?: number },
  ): Promise<BlobContent> {
    if (!this.#deps.flights.has(digest)) {
      const stored = await storedBlob(this.#deps.stores, digest, options);
      if (stored !== undefined) return this.#orFetched(repository, digest, stored);
    }
    const { size, mediaType = MEDIA_TYPES.octetStream } = await this.#size(repository, digest, options);
    if (size <= SMALL_BYTES) return smallBlob({ digest, size, mediaType }, repository, this.#deps, options);
    const start = Math.min(options.start ?? 0, size);
    const flight = await this.#flight(repository, digest, size, start, options);
    return {
      size,
      source: flight.firstSource ?? "upstream",
      open: async (range, opening) => {
        if (flight.canServe(range)) return flight.open(range, opening.signal);
        const stored = await storedBlob(this.#deps.stores, digest, opening);
        // Nothing was stored and the window has moved past the start of the range: a flight of its own.
        if (stored === undefined) return this.#fetched(repository, digest, size, range, opening);
        return this.#orFetched(repository, digest, stored).open(range, opening);
      },
    };
  }

  /** What is stored, or when it proves to be wrong or gone before its first byte, the same from elsewhere. */
  #orFetched(repository: Repository, digest: Digest, stored: BlobContent): BlobContent {
    return {
      ...stored,
      open: async (range, opening) => {
        try {
          return await stored.open(range, opening);
        } catch (error) {
          if (!(error instanceof NotFoundError)) throw error;
          return this.#fetched(repository, digest, stored.size, range, opening);
        }
      },
    };
  }

  async #fetched(
    repository: Repository,
    digest: Digest,
    size: number,
    range: ByteRange,
    options: ContentOptions,
  ): Promise<Readable> {
    const flight = await this.#flight(repository, digest, size, range.start, options);
    return flight.open(range, options.signal);
  }

  async blobSize(
    repository: Repository,
    digest: Digest,
    options: ContentOptions,
  ): Promise<{ size: number; source: SourceKind }> {
    const stored = await storedBlob(this.#deps.stores, digest, options);
    return stored ?? this.#askSize(repository, digest, options);
  }

  async tags(
    repository: Repository,
    query: { n?: number; last?: string },
    { signal }: ContentOptions,
  ): Promise<UpstreamList> {
    try {
      return await this.#deps.upstream.tags(repository, query, { signal });
    } catch (error) {
      return heldTags(this.#deps.catalog, repository, query, error);
    }
  }

  async referrers(
    repository: Repository,
    digest: Digest,
    query: { artifactType?: string },
    { signal }: ContentOptions,
  ): Promise<UpstreamList> {
    try {
      return await this.#deps.upstream.referrers(repository, digest, query, { signal });
    } catch (error) {
      return heldReferrers(this.#deps.catalog, repository, digest, query, error);
    }
  }

  async #flight(
    repository: Repository,
    digest: Digest,
    size: number,
    start: number,
    { signal }: ContentOptions,
  ): Promise<Flight> {
    const mediaType = this.#deps.catalog.describe(digest)?.mediaType ?? "application/octet-stream";
    const flight = await this.#deps.flights.get({ digest, size, mediaType }, repository, start);
    await raceSignal(flight.accepted, signal);
    return flight;
  }

  async #size(
    repository: Repository,
    digest: Digest,
    options: ContentOptions,
  ): Promise<{ size: number; mediaType?: string }> {
    return this.#deps.catalog.describe(digest) ?? this.#askSize(repository, digest, options);
  }

  /** Peers first, as for everything else; what they say is checked like any size: by the digest, at the end. */
  async #askSize(
    repository: Repository,
    digest: Digest,
    { signal }: ContentOptions,
  ): Promise<{ size: number; source: SourceKind }> {
    const { sources, peerClient, upstream } = this.#deps;
    using patience = linkSignal([signal], SIZE_PATIENCE_MS);
    const errors: unknown[] = [];
    try {
      const peers = sources.holders(digest, patience.signal);
      for (;;) {
        const next = await raceSignal(peers.next(), patience.signal);
        if (next.done === true) break;
        try {
          return {
            size: await peerClient.stat(next.value, digest, { signal: patience.signal }),
            source: "peer",
          };
        } catch (error) {
          if (error instanceof NotFoundError) sources.missing(digest, next.value);
          errors.push(error);
        }
      }
    } catch (error) {
      errors.push(error);
    }
    signal.throwIfAborted();
    try {
      return { size: await upstream.blobSize(repository, digest, { signal }), source: "upstream" };
    } catch (error) {
      const refused =
        error instanceof NotFoundError || (error instanceof SourceError && error.code === "DENIED");
      if (refused) throw new NotFoundError("BLOB_UNKNOWN", digest, { cause: error });
      throw new AllSourcesFailedError(digest, [...errors, error]);
    }
  }
}
