import { LRUCache } from "lru-cache";
import {
  InvalidInputError,
  isManifestType,
  MAX_MANIFEST_BYTES,
  NotFoundError,
  parseManifest,
  type Descriptor,
  type Digest,
  type Logger,
  type Manifest,
  type Repository,
} from "@p2p-mirror/shared";
import type { Catalog } from "../store/catalog.ts";
import type { ContentStore } from "../store/content-store.ts";
import type { Upstream } from "../upstream/upstream.ts";
import type { ContentOptions, ManifestContent } from "./content.ts";
import type { SmallObjects } from "./small-objects.ts";
import type { SmallObject } from "./small-request.ts";
import { readWhole } from "./whole.ts";

/** A manifest is learned once, and again after this so that what it names is not forgotten as long unseen. */
const LEARN_EVERY_MS = 60 * 60_000;
const MAX_LEARNED = 2_000;

export interface ManifestsDeps {
  readonly stores: readonly ContentStore[];
  readonly catalog: Catalog;
  readonly small: SmallObjects;
  readonly upstream: Upstream;
  readonly logger: Logger;
}

/** Manifests by digest: from a store of this node, else from a peer, else from upstream. */
export class Manifests {
  readonly #deps: ManifestsDeps;
  readonly #learnedBefore = new LRUCache<string, Descriptor>({ max: MAX_LEARNED, ttl: LEARN_EVERY_MS });

  constructor(deps: ManifestsDeps) {
    this.#deps = deps;
  }

  async get(repository: Repository, digest: Digest, { signal }: ContentOptions): Promise<ManifestContent> {
    const held = await this.#fromStores(digest, signal);
    if (held !== undefined) return this.#learned(repository, digest, held);
    const { small, upstream } = this.#deps;
    const object = await small.get(
      {
        kind: "manifest",
        digest,
        origin: repository,
        upstream: async (asking) => {
          const { bytes, descriptor } = await upstream.manifest(repository, digest, { signal: asking });
          return { bytes: Buffer.from(bytes), mediaType: descriptor.mediaType };
        },
        describe: (fetched) => this.#learned(repository, digest, fetched).descriptor,
      },
      signal,
    );
    return this.#learned(repository, digest, object);
  }

  async #fromStores(digest: Digest, signal: AbortSignal): Promise<SmallObject | undefined> {
    for (const store of this.#deps.stores) {
      const blob = await store.stat(digest, { signal });
      if (blob === undefined || blob.size > MAX_MANIFEST_BYTES) continue;
      const body = await store.read(digest, { start: 0, end: blob.size }, { signal });
      if (body === undefined) continue;
      try {
        return {
          bytes: await readWhole(body, digest, { size: blob.size, source: store.name }),
          source: store.name,
        };
      } catch (error) {
        if (signal.aborted) throw error;
        this.#deps.logger.warn({ err: error, digest, store: store.name }, "a stored manifest cannot be read");
      }
    }
    return undefined;
  }

  /** Remembers what the manifest says of its children. @throws NotFoundError when the bytes are no manifest. */
  #learned(
    repository: Repository,
    digest: Digest,
    { bytes, source, mediaType }: SmallObject,
  ): ManifestContent {
    const key = `${repository.registry}/${repository.repository}@${digest}`;
    const before = this.#learnedBefore.get(key);
    if (before !== undefined) return { descriptor: before, bytes, source };
    let manifest: Manifest;
    try {
      manifest = parseManifest(bytes);
    } catch (error) {
      if (!(error instanceof InvalidInputError)) throw error;
      throw new NotFoundError("MANIFEST_UNKNOWN", digest, { cause: error });
    }
    const { catalog } = this.#deps;
    const named = catalog.describe(digest, repository)?.mediaType;
    const known = named !== undefined && isManifestType(named) ? named : undefined;
    const descriptor = {
      digest,
      size: bytes.length,
      mediaType: manifest.declaredType ?? mediaType ?? known ?? manifest.mediaType,
    };
    catalog.learnManifest(descriptor, manifest, repository);
    this.#learnedBefore.set(key, descriptor);
    return { descriptor, bytes, source };
  }
}
