import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import type { Component } from "./components.ts";
import { startContainerd, type Containerd } from "./containerd.ts";
import { createCri, type Cri } from "./cri.ts";
import { startDockerRegistry, type DockerRegistry } from "./docker-registry.ts";
import { writeHosts } from "./hosts.ts";
import { startMirror, writeClusterSecret, type Mirror } from "./mirror.ts";
import { createNetwork, type LinkRates, type Network, type NetworkNode } from "./netns.ts";
import { until } from "./until.ts";

export interface ClusterOptions {
  readonly registry: Component;
  readonly containerd: Component;
  readonly nodes: number;
  readonly chunked?: boolean;
  /** Rates of the upstream's link (index 0) and the nodes' (from 1). */
  readonly rates?: (index: number) => LinkRates;
  /** Whether the mirrors read containerd's content store, too; default true. */
  readonly shareContainerd?: boolean;
  readonly mirrorFlags?: readonly string[];
}

/** A machine of the cluster: a containerd that asks the mirror beside it first, then upstream. */
export interface ClusterNode {
  readonly network: NetworkNode;
  readonly containerd: Containerd;
  readonly cri: Cri;
  readonly mirror: Mirror;
}

export interface Cluster extends AsyncDisposable {
  /** As image names have it. */
  readonly registry: string;
  readonly upstream: DockerRegistry;
  readonly network: Network;
  readonly nodes: readonly ClusterNode[];
  /** Bytes that left upstream's interface, frame headers included. */
  upstreamBytes(): Promise<number>;
}

export const CLUSTER_REGISTRY = "reg.example.test";

/** docker-registry and N nodes, each in a network namespace of its own, that know each other. */
export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  await using starting = new AsyncDisposableStack();
  const network = starting.use(
    await createNetwork({
      nodes: options.nodes + 1,
      ...(options.rates && { rates: options.rates }),
    }),
  );
  const [place, ...places] = network.nodes;
  if (place === undefined) throw new TypeError("the upstream has a node of its own");
  const upstream = starting.use(
    await startDockerRegistry({ component: options.registry, netns: place.netns, address: place.address }),
  );
  const home = await mkdtemp(path.join(os.tmpdir(), "p2pm-cluster-"));
  starting.defer(() => rm(home, { recursive: true, force: true }));
  const secret = await writeClusterSecret(path.join(home, "secret"));
  const bootstrap = places.slice(0, 1).map(({ address }) => `${address}:24222`);

  const nodes: ClusterNode[] = [];
  for (const [index, node] of places.entries()) {
    const containerd = starting.use(
      await startContainerd({
        component: options.containerd,
        netns: node.netns,
        chunked: options.chunked ?? false,
      }),
    );
    const mirror = starting.use(
      await startMirror({
        name: `mirror-${index + 1}`,
        node,
        secretFiles: [secret],
        bootstrap,
        upstreams: { [CLUSTER_REGISTRY]: upstream.url },
        ...(options.shareContainerd === false ? {} : { containerdSocket: containerd.socket }),
        ...(options.mirrorFlags && { flags: options.mirrorFlags }),
      }),
    );
    await writeHosts(containerd.certsDir, CLUSTER_REGISTRY, { server: upstream.url, mirrors: [mirror.url] });
    nodes.push({ network: node, containerd, cri: starting.use(createCri(containerd.socket)), mirror });
  }
  await until("the mirrors know each other", async () => {
    const peers = await Promise.all(nodes.map(({ mirror }) => peersOf(mirror)));
    return peers.every((count) => count === nodes.length - 1);
  });
  const running = starting.move();
  return {
    registry: CLUSTER_REGISTRY,
    upstream,
    network,
    nodes,
    upstreamBytes: async () => (await place.counters()).txBytes,
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

/** How many other mirrors one is in contact with. */
export async function peersOf(mirror: Mirror): Promise<number> {
  const status: unknown = await (await fetch(`${mirror.adminUrl}/status`)).json();
  const peers = typeof status === "object" && status !== null && "peers" in status ? status.peers : [];
  return Array.isArray(peers) ? peers.length : 0;
}
