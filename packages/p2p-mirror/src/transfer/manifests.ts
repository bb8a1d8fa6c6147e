import {
  InvalidInputError,
  MAX_MANIFEST_BYTES,
  NotFoundError,
  parseManifest,
  type Digest,
  type Logger,
  type Manifest,
  type Repository,
} from "@p2p-mirror/shared";
import type { Catalog } from "../store/catalog.ts";
import type { ContentStore } from "../store/content-store.ts";
import type { Upstream } from "../upstream/upstream.ts";
import type { ContentOptions, ManifestContent } from "./content.ts";
import type { SmallObject, SmallObjects } from "./small-objects.ts";
import { readWhole } from "./whole.ts";

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

  constructor(deps: ManifestsDeps) {
    this.#deps = deps;
  }

  async get(repository: Repository, digest: Digest, { signal }: ContentOptions): Promise<ManifestContent> {
    const held = await this.#fromStores(digest, signal);
    if (held !== undefined) return this.#learned(repository, digest, held);
    const { small, upstream } = this.#deps;
    const object = await small.get(
      {
        digest,
        origin: repository,
        notFound: "MANIFEST_UNKNOWN",
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
        return { bytes: await readWhole(body, digest, blob.size, store.name), source: store.name };
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
    let manifest: Manifest;
    try {
      manifest = parseManifest(bytes);
    } catch (error) {
      if (!(error instanceof InvalidInputError)) throw error;
      throw new NotFoundError("MANIFEST_UNKNOWN", digest, { cause: error });
    }
    const { catalog } = this.#deps;
    const known = catalog.describe(digest)?.mediaType;
    const descriptor = {
      digest,
      size: bytes.length,
      mediaType: manifest.declaredType ?? mediaType ?? known ?? manifest.mediaType,
    };
    catalog.learnManifest(descriptor, manifest, repository);
    return { descriptor, bytes, source };
  }
}
