import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { digestOf, silentLogger, type Digest } from "@p2p-mirror/shared";
import { MemoryDatastore } from "datastore-core";
import { Registry } from "prom-client";
import { createRouter, type KadRouter } from "../../packages/p2p-mirror/src/routing/kad-router.ts";
import { createMeshNode, type MeshNode } from "../../packages/p2p-mirror/src/routing/libp2p-node.ts";
import { createRoutingMetrics, type RoutingMetrics } from "../../packages/p2p-mirror/src/routing/metrics.ts";
import { clusterSecrets } from "../../packages/p2p-mirror/src/trust/cluster-secret.ts";
import { newIdentity } from "../../packages/p2p-mirror/src/trust/identity.ts";

const SECRETS = clusterSecrets([Buffer.alloc(32, "bench")]);
const FORM_TIMEOUT_MS = 180_000;

async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + FORM_TIMEOUT_MS;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`not within ${FORM_TIMEOUT_MS} ms: ${what}`);
    await delay(50);
  }
}

/** Routers in this process, over real sockets on loopback: what one does and what the others do for it is one sum of CPU. */
export class BenchMesh {
  readonly routers: readonly KadRouter[];
  readonly #metrics: readonly RoutingMetrics[];
  readonly #directory: string;

  private constructor(routers: readonly KadRouter[], metrics: readonly RoutingMetrics[], directory: string) {
    this.routers = routers;
    this.#metrics = metrics;
    this.#directory = directory;
  }

  static async form(count: number): Promise<BenchMesh> {
    const directory = await mkdtemp(join(tmpdir(), "bench-mesh-"));
    const routers: KadRouter[] = [];
    const metrics: RoutingMetrics[] = [];
    for (let i = 0; i < count; i += 1) {
      const first = routers[0]?.libp2pAddress;
      const own = createRoutingMetrics(new Registry());
      metrics.push(own);
      const router = await createRouter(
        {
          listen: { host: "127.0.0.1", port: 0 },
          peerPort: 20_000 + i,
          bootstrap: first === undefined ? [] : [`${first.host}:${first.port}`],
          dataDir: join(directory, String(i)),
        },
        {
          identity: await newIdentity(),
          secrets: SECRETS,
          logger: silentLogger(),
          metrics: own,
        },
      );
      await router.start(new AbortController().signal);
      routers.push(router);
    }
    await until(() => routers.every((router) => router.peers().length === count - 1), "all see each other");
    await quiet();
    return new BenchMesh(routers, metrics, directory);
  }

  /** Lookups of all nodes so far that had to ask others. */
  async asked(): Promise<number> {
    let sum = 0;
    for (const { lookups } of this.#metrics) {
      for (const { labels, value } of (await lookups.get()).values) if (labels.result === "dht") sum += value;
    }
    return sum;
  }

  router(nth: number): KadRouter {
    const router = this.routers[nth % this.routers.length];
    if (router === undefined) throw new RangeError("no routers");
    return router;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.routers.map((router) => router.close()));
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** The same libp2p nodes with kad-dht's own provide, lookup and provider store, to compare with. */
export async function formPlainKad(count: number): Promise<MeshNode[]> {
  const nodes: MeshNode[] = [];
  for (let i = 0; i < count; i += 1) {
    const node = await createMeshNode(
      { listen: { host: "127.0.0.1", port: 0 }, advertiseHost: "127.0.0.1", peerPort: 20_000 + i },
      { identity: await newIdentity(), secrets: SECRETS, providers: new MemoryDatastore() },
    );
    await node.start();
    nodes.push(node);
    for (const other of nodes.slice(0, -1)) {
      const [address] = other.getMultiaddrs();
      if (address !== undefined) await node.dial(address);
    }
    await node.peerStore.patch(node.peerId, { multiaddrs: node.getMultiaddrs() });
  }
  await quiet();
  return nodes;
}

/** Waits until what the nodes do by themselves after a change is over: CPU use below a fifth of a core, two seconds on end. */
async function quiet(): Promise<void> {
  const deadline = performance.now() + FORM_TIMEOUT_MS;
  for (let calm = 0; calm < 2 && performance.now() < deadline;) {
    const before = process.cpuUsage();
    await delay(1_000);
    const { user, system } = process.cpuUsage(before);
    calm = user + system < 200_000 ? calm + 1 : 0;
  }
}

export const cpuMs = (since: NodeJS.CpuUsage): number => {
  const { user, system } = process.cpuUsage(since);
  return (user + system) / 1_000;
};

export const keysOf = (text: string, count: number): Digest[] =>
  Array.from({ length: count }, (_, nth) => digestOf(Buffer.from(`${text} ${nth}`)));
