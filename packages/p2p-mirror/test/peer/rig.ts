import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import { BlockPool, digestOf, silentLogger, type ByteRange, type Digest } from "@p2p-mirror/shared";
import { Registry } from "prom-client";
import { createPeerClient, type PeerClientDeps, type PeerClientOptions } from "../../src/peer/client.ts";
import { createPeerMetrics } from "../../src/peer/metrics.ts";
import { createPeerServer, type PeerServerDeps, type PeerServerOptions } from "../../src/peer/server.ts";
import type { Peer } from "../../src/routing/router.ts";
import type { BlobContent, LocalContent, PieceContent } from "../../src/transfer/content.ts";
import { clusterSecrets, type ClusterSecrets } from "../../src/trust/cluster-secret.ts";
import { newIdentity, type Identity } from "../../src/trust/identity.ts";
import { createPeerTls, type PeerTls } from "../../src/trust/peer-tls.ts";

/** One secret for all nodes of a test file, so that everybody is in the same cluster unless a test says otherwise. */
export const SECRETS: ClusterSecrets = clusterSecrets([randomBytes(32)]);

export interface TestNode {
  readonly identity: Identity;
  readonly tls: PeerTls;
  readonly registry: Registry;
}

export async function newNode(secrets: ClusterSecrets = SECRETS): Promise<TestNode> {
  const identity = await newIdentity();
  return { identity, tls: createPeerTls(identity, secrets), registry: new Registry() };
}

export interface Blob {
  readonly digest: Digest;
  readonly bytes: Buffer;
}

export function newBlob(size: number): Blob {
  const bytes = randomBytes(size);
  return { digest: digestOf(bytes), bytes };
}

/** What a test node holds; `open` may be replaced to cause faults. */
export class MemoryContent implements LocalContent {
  readonly blobs = new Map<Digest, Buffer>();
  readonly records = new Map<string, string>();
  /** By number, of whatever blob of the size the test asks for. */
  readonly pieces = new Map<number, PieceContent>();
  readonly opened: Readable[] = [];
  chunkBytes = 64 * 1024;
  open: (bytes: Buffer, range: ByteRange) => Readable = (bytes, range) => {
    const chunkBytes = this.chunkBytes;
    return Readable.from(
      (function* chunks() {
        for (let at = range.start; at < range.end; at += chunkBytes) {
          yield bytes.subarray(at, Math.min(range.end, at + chunkBytes));
        }
      })(),
      { objectMode: false },
    );
  };

  constructor(...blobs: Blob[]) {
    for (const { digest, bytes } of blobs) this.blobs.set(digest, bytes);
  }

  async blob(digest: Digest): Promise<BlobContent | undefined> {
    const bytes = this.blobs.get(digest);
    if (bytes === undefined) return undefined;
    return {
      size: bytes.byteLength,
      source: "cache",
      open: async (range) => {
        const body = this.open(bytes, range);
        this.opened.push(body);
        return body;
      },
    };
  }

  async piece(_digest: Digest, _size: number, piece: number): Promise<PieceContent | undefined> {
    return this.pieces.get(piece);
  }

  record(key: string): string | undefined {
    return this.records.get(key);
  }
}

export interface Closeable {
  close(): Promise<void>;
}

/** A started server and the peer it is. */
export async function startServer(
  test: { teardown(fn: () => Promise<void>): void },
  local: LocalContent,
  options: Partial<PeerServerOptions> = {},
  deps: Partial<PeerServerDeps> = {},
) {
  const node = await newNode();
  const server = createPeerServer(
    { listen: { host: "127.0.0.1", port: 0 }, ...options },
    {
      tls: node.tls,
      local,
      others: () => [],
      logger: silentLogger(),
      metrics: createPeerMetrics(node.registry),
      ...deps,
    },
  );
  await server.start(new AbortController().signal);
  let closed: Promise<void> | undefined;
  const close = (): Promise<void> => (closed ??= server.close());
  test.teardown(close);
  const peer: Peer = { id: node.identity.id, host: "127.0.0.1", port: server.address.port };
  return { ...node, server, peer, close };
}

export async function newClient(
  test: { teardown(fn: () => Promise<void>): void },
  options: PeerClientOptions = {},
  deps: Partial<PeerClientDeps> & { secrets?: ClusterSecrets } = {},
) {
  const node = await newNode(deps.secrets);
  const client = createPeerClient(options, {
    tls: node.tls,
    logger: silentLogger(),
    metrics: createPeerMetrics(node.registry),
    blocks: new BlockPool(),
    ...deps,
  });
  let closed: Promise<void> | undefined;
  const close = (): Promise<void> => (closed ??= client.close());
  test.teardown(close);
  return { ...node, client, close };
}

/** The value of one metric, 0 when it was never touched. */
export async function metric(
  registry: Registry,
  name: string,
  labels: Record<string, string> = {},
): Promise<number> {
  const all = await registry.getSingleMetric(name)?.get();
  if (all === undefined) throw new Error(`there is no metric ${name}`);
  return all.values
    .filter((value) => Object.entries(labels).every(([key, wanted]) => value.labels[key] === wanted))
    .reduce((sum, value) => sum + value.value, 0);
}

export async function read(body: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of body) if (Buffer.isBuffer(chunk)) chunks.push(chunk);
  return Buffer.concat(chunks);
}
