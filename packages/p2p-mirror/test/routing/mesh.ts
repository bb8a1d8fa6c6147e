import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLogger } from "@p2p-mirror/shared";
import { Registry } from "prom-client";
import type { Directory } from "../../src/routing/bootstrapper.ts";
import { createRouter, type KadRouter } from "../../src/routing/kad-router.ts";
import type { RouterOptions } from "../../src/routing/router-options.ts";
import { createRoutingMetrics } from "../../src/routing/metrics.ts";
import { clusterSecrets, type ClusterSecrets } from "../../src/trust/cluster-secret.ts";
import { newIdentity, type Identity } from "../../src/trust/identity.ts";
import { until } from "../../../../test/rig/until.ts";

export interface Node {
  readonly router: KadRouter;
  readonly registry: Registry;
  readonly dataDir: string;
  readonly identity: Identity;
  close(): Promise<void>;
}

export interface NodeInit extends Partial<RouterOptions> {
  readonly secrets?: ClusterSecrets;
  readonly identity?: Identity;
  readonly now?: () => number;
  readonly directory?: Directory;
}

/** Real libp2p nodes on loopback that share a secret; everything they leave is gone after `close`. */
export class Mesh {
  readonly #secrets = clusterSecrets([Buffer.alloc(32, "mesh")]);
  readonly #nodes: Node[] = [];
  readonly #directories: string[] = [];

  async start(init: NodeInit = {}): Promise<Node> {
    const { secrets = this.#secrets, identity = await newIdentity(), now, directory, ...options } = init;
    const registry = new Registry();
    const dataDir = options.dataDir ?? (await mkdtemp(join(tmpdir(), "p2p-mirror-routing-")));
    this.#directories.push(dataDir);
    const router = await createRouter(
      {
        listen: { host: "127.0.0.1", port: 0 },
        peerPort: 40_000 + this.#nodes.length,
        ...options,
        bootstrap: options.bootstrap ?? this.#nodes.slice(0, 1).map((node) => addressOf(node)),
        dataDir,
      },
      {
        identity,
        secrets,
        logger: silentLogger(),
        metrics: createRoutingMetrics(registry),
        directory,
        ...(now === undefined ? {} : { now }),
      },
    );
    let closing: Promise<void> | undefined;
    const node: Node = { router, registry, dataDir, identity, close: () => (closing ??= router.close()) };
    this.#nodes.push(node);
    await router.start(new AbortController().signal);
    return node;
  }

  /** `count` nodes, each of which sees all others. */
  async startMany(count: number, init: NodeInit = {}): Promise<Node[]> {
    const nodes: Node[] = [];
    for (let i = 0; i < count; i += 1) nodes.push(await this.start(init));
    await allSeeEachOther(nodes);
    return nodes;
  }

  async close(): Promise<void> {
    await Promise.all(this.#nodes.map((node) => node.close()));
    await Promise.all(this.#directories.map((directory) => rm(directory, { recursive: true, force: true })));
  }
}

export const addressOf = ({ router }: Pick<Node, "router">): string =>
  `${router.libp2pAddress.host}:${router.libp2pAddress.port}`;

export async function allSeeEachOther(nodes: readonly Node[]): Promise<void> {
  await until(
    "every node sees every other",
    () => nodes.every(({ router }) => router.peers().length === nodes.length - 1),
    { timeoutMs: 20_000 },
  );
}

/** The value of a metric without labels, or summed over them. */
export async function metric(node: Node, name: string): Promise<number> {
  const found = await node.registry.getSingleMetric(name)?.get();
  return (found?.values ?? []).reduce((sum, { value }) => sum + value, 0);
}
