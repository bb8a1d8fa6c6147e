import type { Readable } from "node:stream";
import { LRUCache } from "lru-cache";
import {
  AllSourcesFailedError,
  IntegrityError,
  linkSignal,
  MEDIA_TYPES,
  NotFoundError,
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
import { PatientLookup } from "./patient-lookup.ts";
import type { PeerClient } from "./peer-client.ts";
import { smallBlob } from "./small-blobs.ts";
import type { SmallObjects } from "./small-objects.ts";
import { SMALL_BYTES } from "./small-request.ts";
import { storedBlob } from "./stored-blob.ts";
import type { Tags } from "./tags.ts";
import { TooLargeError } from "./whole.ts";

/** A peer that has not said the size of a blob by then is not waited for. */
const SIZE_PATIENCE_MS = 1_000;
const MAX_PEERS_ASKED = 4;
/** How long a size that was found out counts more than what a manifest says. */
const FOUND_MS = 10 * 60_000;

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
  /** Sizes that no manifest has named, or a manifest named wrong. */
  readonly #found = new LRUCache<Digest, { size: number; source: SourceKind }>({ max: 1_000, ttl: FOUND_MS });

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
    const known = this.#found.get(digest) ?? this.#deps.catalog.describe(digest, repository);
    const said = known ?? (await this.#askSize(repository, digest, options));
    if (said.size <= SMALL_BYTES) {
      const { mediaType } = this.#describe(repository, digest);
      try {
        return await smallBlob({ digest, mediaType }, repository, this.#deps, options);
      } catch (error) {
        if (!(error instanceof TooLargeError)) throw error;
        return this.#flown(repository, digest, await this.#askSize(repository, digest, options), options);
      }
    }
    try {
      return await this.#flown(repository, digest, said, options);
    } catch (error) {
      if (!isWrongSize(error)) throw error;
      const { size } = await this.#askSize(repository, digest, options);
      if (size === said.size) throw error;
      return this.#flown(repository, digest, { size }, options);
    }
  }

  /** A blob of that size from its flight. */
  async #flown(
    repository: Repository,
    digest: Digest,
    { size }: { readonly size: number },
    options: ContentOptions & { readonly start?: number },
  ): Promise<BlobContent> {
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
    const { mediaType } = this.#describe(repository, digest);
    const flight = await this.#deps.flights.get({ digest, size, mediaType }, repository, start);
    await flight.accept(signal);
    return flight;
  }

  #describe(repository: Repository, digest: Digest): { readonly mediaType: string } {
    return this.#deps.catalog.describe(digest, repository) ?? { mediaType: MEDIA_TYPES.octetStream };
  }

  /**
   * Peers first, as for everything else, but one alone does not decide: two that say the same, else upstream, and what
   * most peers say only when upstream cannot be asked.
   */
  async #askSize(
    repository: Repository,
    digest: Digest,
    { signal }: ContentOptions,
  ): Promise<{ size: number; source: SourceKind }> {
    const errors: unknown[] = [];
    const votes = await this.#peersOnSize(digest, signal, errors);
    signal.throwIfAborted();
    const [first] = [...votes].toSorted((a, b) => b[1] - a[1]);
    const byPeers = first === undefined ? undefined : { size: first[0], source: "peer" as const };
    if (byPeers !== undefined && (first?.[1] ?? 0) > 1) return this.#remember(digest, byPeers);
    try {
      const size = await this.#deps.upstream.blobSize(repository, digest, { signal });
      return this.#remember(digest, { size, source: "upstream" });
    } catch (error) {
      signal.throwIfAborted();
      const refused =
        error instanceof NotFoundError || (error instanceof SourceError && error.code === "DENIED");
      // Not remembered: upstream may say another soon.
      if (byPeers !== undefined) return byPeers;
      if (refused) throw new NotFoundError("BLOB_UNKNOWN", digest, { cause: error });
      throw new AllSourcesFailedError(digest, [...errors, error]);
    }
  }

  #remember(
    digest: Digest,
    found: { size: number; source: SourceKind },
  ): { size: number; source: SourceKind } {
    this.#found.set(digest, found);
    return found;
  }

  /** How many peers say which size; ends when two agree. */
  async #peersOnSize(
    digest: Digest,
    signal: AbortSignal,
    errors: unknown[],
  ): Promise<ReadonlyMap<number, number>> {
    const { sources, peerClient } = this.#deps;
    const votes = new Map<number, number>();
    using lookup = new PatientLookup((looking) => sources.holders(digest, looking), signal);
    try {
      for (let asked = 0; asked < MAX_PEERS_ASKED; asked += 1) {
        const peer = await lookup.next();
        if (peer === undefined) break;
        using patience = linkSignal([signal], SIZE_PATIENCE_MS);
        try {
          const size = await peerClient.stat(peer, digest, { signal: patience.signal });
          const count = (votes.get(size) ?? 0) + 1;
          votes.set(size, count);
          if (count > 1) break;
        } catch (error) {
          if (error instanceof NotFoundError) sources.missing(digest, peer);
          errors.push(error);
        }
      }
    } catch (error) {
      errors.push(error);
    }
    return votes;
  }
}

/** Every source of a flight failed, and some because the blob has another size than a manifest said. */
const isWrongSize = (error: unknown): boolean =>
  error instanceof AllSourcesFailedError &&
  error.errors.some((one) => one instanceof IntegrityError && one.code === "SIZE_MISMATCH");
