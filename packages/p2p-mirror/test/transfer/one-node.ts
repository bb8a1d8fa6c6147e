import { createServer, type AddressInfo } from "node:net";
import { Registry } from "prom-client";
import type { Test } from "tap";
import {
  digestOf,
  MEDIA_TYPES,
  parseManifest,
  silentLogger,
  systemClock,
  type Clock,
  type Descriptor,
  type Digest,
  type Logger,
  type Repository,
} from "@p2p-mirror/shared";
import { startOciRegistry, type OciRegistry } from "../../../../test/rig/oci-registry.ts";
import { MemoryMesh } from "../../src/routing/memory-router.ts";
import type { Peer, Router, RoutingKey } from "../../src/routing/router.ts";
import type { Catalog } from "../../src/store/catalog.ts";
import type { BlobContent } from "../../src/transfer/content.ts";
import { Flights } from "../../src/transfer/flights.ts";
import { Manifests } from "../../src/transfer/manifests.ts";
import { createTransferMetrics } from "../../src/transfer/metrics.ts";
import { PublicAccess } from "../../src/transfer/mirror-access.ts";
import { MirrorContent } from "../../src/transfer/mirror-content.ts";
import { MirrorSources } from "../../src/transfer/mirror-sources.ts";
import type { PeerClient } from "../../src/transfer/peer-client.ts";
import { PublishedRecords } from "../../src/transfer/published-records.ts";
import { SmallObjects } from "../../src/transfer/small-objects.ts";
import type { Upstream } from "../../src/upstream/upstream.ts";
import { Tags } from "../../src/transfer/tags.ts";
import { newIdentity } from "../../src/trust/identity.ts";
import { createRecordSigner } from "../../src/trust/record-signer.ts";
import { MemoryContent, newClient, startServer } from "../peer/rig.ts";
import { runCache, type RunningCache } from "../store/cache-fixture.ts";
import { clientOf, NAME } from "../upstream/rig.ts";

export const APP: Repository = { registry: NAME, repository: "team/app" };
export const OTHER: Repository = { registry: NAME, repository: "team/other" };

export interface NodeOptions {
  readonly clock?: Clock;
  readonly logger?: Logger;
  /** What stands before the peer client, for faults that no peer of ours makes. */
  readonly client?: (real: PeerClient) => PeerClient;
  readonly router?: (real: Router) => Router;
  readonly catalog?: (real: Catalog) => Catalog;
  /** Instead of the upstream's own. */
  readonly resolve?: Upstream["resolve"];
}

export interface OneNode {
  readonly registry: OciRegistry;
  readonly cache: RunningCache;
  readonly catalog: Catalog;
  readonly router: Router;
  readonly published: PublishedRecords;
  readonly sources: MirrorSources;
  readonly small: SmallObjects;
  readonly tags: Tags;
  readonly manifests: Manifests;
  readonly content: MirrorContent;
  readonly access: PublicAccess;
  /** Peers that were caught with wrong bytes. */
  readonly refuted: string[];
  /** A peer over real TLS that holds what `local` does and says so for `keys`. */
  peer(local: MemoryContent, keys: readonly RoutingKey[]): Promise<Peer>;
  /** A peer that accepts connections and never says a word. */
  silentPeer(id: string, keys: readonly RoutingKey[]): Promise<Peer>;
  /** A peer that is nowhere; for scripted clients. */
  paperPeer(id: string, keys: readonly RoutingKey[]): Peer;
  /** Learns a manifest of the repository that names this. */
  learn(repository: Repository, named: Descriptor): Descriptor;
}

/** The transfer part of one node: a registry, peers, TLS and a cache on disk, all real; the DHT is a table. */
export async function oneNode(t: Test, options: NodeOptions = {}): Promise<OneNode> {
  const { clock = systemClock, logger = silentLogger() } = options;
  const registry = await startOciRegistry();
  t.teardown(() => registry.close());
  const { upstream } = clientOf(t, { [NAME]: { url: registry.url } });
  if (options.resolve !== undefined) upstream.resolve = options.resolve;
  const cache = await runCache(t);
  const mesh = new MemoryMesh();
  const identity = await newIdentity();
  const joined = mesh.join({ id: identity.id, host: "127.0.0.1", port: 1 });
  const router = options.router?.(joined) ?? joined;
  const { client } = await newClient(t);
  const peerClient = options.client?.(client) ?? client;
  const catalog = options.catalog?.(cache.catalog) ?? cache.catalog;
  const refuted: string[] = [];
  const metrics = createTransferMetrics(new Registry());
  const records = createRecordSigner(identity, clock);
  const published = new PublishedRecords({ router, clock, logger });
  const parts = { upstream, router, peerClient, catalog, records, published, clock, logger, metrics };
  const sources = new MirrorSources({ ...parts, refuted: ({ id }) => void refuted.push(id) });
  const flights = new Flights({ ...parts, cache: cache.store, finder: sources });
  const small = new SmallObjects({ ...parts, random: Math.random, cache: cache.store, sources });
  const stores = [cache.store];
  const manifests = new Manifests({ ...parts, stores, small });
  const tags = new Tags(parts);
  t.teardown(() => Promise.all([flights.close(), small.close(), tags.close()]));
  const join = async (peer: Peer, keys: readonly RoutingKey[]): Promise<Peer> => {
    await mesh.join(peer).advertise(keys);
    return peer;
  };
  return {
    registry,
    cache,
    catalog,
    router,
    published,
    sources,
    small,
    tags,
    manifests,
    content: new MirrorContent({ ...parts, stores, flights, small, manifests, tags, sources }),
    access: new PublicAccess(parts),
    refuted,
    peer: async (local, keys) => join((await startServer(t, local)).peer, keys),
    silentPeer: async (id, keys) => {
      const server = createServer((socket) => {
        socket.on("error", () => undefined);
        t.teardown(() => void socket.destroy());
      });
      await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
      t.teardown(() => void server.close());
      return join({ id, host: "127.0.0.1", port: (server.address() as AddressInfo).port }, keys);
    },
    paperPeer: (id, keys) => {
      const peer = { id, host: "127.0.0.1", port: 9 };
      void join(peer, keys);
      return peer;
    },
    learn: (repository, named) => {
      const { bytes, descriptor } = manifestNaming(named);
      catalog.learnManifest(descriptor, parseManifest(bytes), repository);
      return descriptor;
    },
  };
}

export function manifestNaming(...layers: readonly Descriptor[]): { bytes: Buffer; descriptor: Descriptor } {
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.ociManifest, layers }));
  return {
    bytes,
    descriptor: { digest: digestOf(bytes), size: bytes.length, mediaType: MEDIA_TYPES.ociManifest },
  };
}

export const descriptorOf = (bytes: Buffer, size = bytes.length): Descriptor => ({
  digest: digestOf(bytes),
  size,
  mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
});

export const holding = (...all: readonly Buffer[]): MemoryContent =>
  new MemoryContent(...all.map((bytes) => ({ digest: digestOf(bytes), bytes })));

/** Says it holds `digest`, with these bytes. */
export function lying(digest: Digest, bytes: Buffer): MemoryContent {
  const local = new MemoryContent();
  local.blobs.set(digest, bytes);
  return local;
}

/** All of a blob, as a client reads it. */
export async function readBlob(blob: BlobContent, signal: AbortSignal): Promise<Buffer> {
  const body = await blob.open({ start: 0, end: blob.size }, { signal });
  return Buffer.concat(await body.toArray());
}

/** Requests for bodies or sizes of blobs that arrived at the registry, like `GET team/app`. */
export const blobRequests = (registry: OciRegistry): string[] =>
  registry.requests
    .filter(({ kind }) => kind === "blob")
    .map(({ method, repository }) => `${method} ${repository}`);
