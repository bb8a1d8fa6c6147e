import {
  AllSourcesFailedError,
  IntegrityError,
  InvalidInputError,
  linkSignal,
  MAX_MANIFEST_BYTES,
  NotFoundError,
  parseManifest,
  raceSignal,
  SingleFlight,
  SourceError,
  type Clock,
  type Descriptor,
  type Digest,
  type Logger,
  type Manifest,
  type Repository,
} from "@p2p-mirror/shared";
import type { BlobCache } from "../store/blob-cache.ts";
import type { Catalog } from "../store/catalog.ts";
import type { ContentStore } from "../store/content-store.ts";
import type { Upstream } from "../upstream/upstream.ts";
import type { ContentOptions, ManifestContent, SourceKind } from "./content.ts";
import type { TransferMetrics } from "./metrics.ts";
import type { MirrorSources } from "./mirror-sources.ts";
import type { PeerClient } from "./peer-client.ts";
import { patiently } from "./patience.ts";
import { readWhole } from "./whole.ts";

/** All of it: lookup, peers, upstream with its retries. */
const DEADLINE_MS = 45_000;
/** A peer that has not given a manifest by then is not waited for; the next source is asked. */
const PEER_DEADLINE_MS = 2_000;
/** How long a lookup may take before upstream is asked. */
const LOOKUP_PATIENCE_MS = 1_000;
const MAX_PEERS_ASKED = 4;

export interface ManifestsDeps {
  readonly stores: readonly ContentStore[];
  readonly cache: BlobCache;
  readonly catalog: Catalog;
  readonly sources: MirrorSources;
  readonly peerClient: PeerClient;
  readonly upstream: Upstream;
  readonly clock: Clock;
  readonly metrics: TransferMetrics;
  readonly logger: Logger;
}

interface Fetched {
  readonly bytes: Buffer;
  readonly source: SourceKind;
  /** What upstream's Content-Type said; from elsewhere the document itself must tell. */
  readonly mediaType?: string;
}

/** Manifests by digest: from a store of this node, else from a peer, else from upstream; fetched once at a time. */
export class Manifests {
  readonly #deps: ManifestsDeps;
  readonly #fetches = new SingleFlight<ManifestContent>();

  constructor(deps: ManifestsDeps) {
    this.#deps = deps;
  }

  async get(repository: Repository, digest: Digest, options: ContentOptions): Promise<ManifestContent> {
    const held = await this.#fromStores(digest, options.signal);
    if (held !== undefined) return this.#learned(repository, digest, held);
    const key = `${repository.registry}/${repository.repository}@${digest}`;
    return this.#fetches.run(key, () => this.#fetch(repository, digest), options.signal);
  }

  settled(): Promise<void> {
    return this.#fetches.settled();
  }

  async #fromStores(digest: Digest, signal: AbortSignal): Promise<Fetched | undefined> {
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

  async #fetch(repository: Repository, digest: Digest): Promise<ManifestContent> {
    using deadline = linkSignal([], DEADLINE_MS);
    const until = this.#deps.clock.now() + DEADLINE_MS;
    const errors: unknown[] = [];
    const fetched =
      (await this.#fromPeers(digest, deadline.signal, errors)) ??
      (await this.#fromUpstream(repository, digest, deadline.signal, until, errors));
    this.#deps.metrics.received.inc({ source: fetched.source }, fetched.bytes.length);
    const content = this.#learned(repository, digest, fetched);
    await this.#deps.cache.put(content.descriptor, content.bytes, repository);
    return content;
  }

  async #fromPeers(digest: Digest, signal: AbortSignal, errors: unknown[]): Promise<Fetched | undefined> {
    const { sources, peerClient } = this.#deps;
    using lookup = linkSignal([signal], LOOKUP_PATIENCE_MS);
    const peers = sources.holders(digest, lookup.signal);
    try {
      for (let asked = 0; asked < MAX_PEERS_ASKED; asked += 1) {
        const next = await raceSignal(peers.next(), lookup.signal);
        if (next.done === true) return undefined;
        const peer = next.value;
        using patience = linkSignal([signal], PEER_DEADLINE_MS);
        try {
          const { size, body } = await peerClient.blob(peer, digest, undefined, { signal: patience.signal });
          const bytes = await readWhole(body, digest, size, peer.id);
          sources.remember(digest, peer);
          return { bytes, source: "peer" };
        } catch (error) {
          errors.push(error);
          if (error instanceof NotFoundError) sources.missing(digest, peer);
          if (error instanceof IntegrityError) sources.refute(peer);
        }
      }
    } catch (error) {
      errors.push(error);
    } finally {
      // Not awaited: a lookup that hangs must not hold the manifest up; its signal ends it.
      lookup.abort();
      void peers.return().catch(() => undefined);
    }
    return undefined;
  }

  async #fromUpstream(
    repository: Repository,
    digest: Digest,
    signal: AbortSignal,
    until: number,
    errors: unknown[],
  ): Promise<Fetched> {
    try {
      const { clock, upstream } = this.#deps;
      const { bytes, descriptor } = await patiently(
        () => upstream.manifest(repository, digest, { signal }),
        until,
        clock,
        signal,
      );
      return { bytes: Buffer.from(bytes), source: "upstream", mediaType: descriptor.mediaType };
    } catch (error) {
      const refused =
        error instanceof NotFoundError || (error instanceof SourceError && error.code === "DENIED");
      if (refused) throw new NotFoundError("MANIFEST_UNKNOWN", digest, { cause: error });
      throw new AllSourcesFailedError(digest, [...errors, error]);
    }
  }

  /** Remembers what the manifest says of its children. @throws NotFoundError when the bytes are no manifest. */
  #learned(repository: Repository, digest: Digest, { bytes, source, mediaType }: Fetched): ManifestContent {
    let manifest: Manifest;
    try {
      manifest = parseManifest(bytes);
    } catch (error) {
      if (!(error instanceof InvalidInputError)) throw error;
      throw new NotFoundError("MANIFEST_UNKNOWN", digest, { cause: error });
    }
    const known = this.#deps.catalog.describe(digest)?.mediaType;
    const descriptor: Descriptor = {
      digest,
      size: bytes.length,
      mediaType: manifest.declaredType ?? mediaType ?? known ?? manifest.mediaType,
    };
    this.#deps.catalog.learnManifest(descriptor, manifest, repository);
    return { descriptor, bytes, source };
  }
}
