import { mkdir, rm } from "node:fs/promises";
import path from "node:path";
import { RigError } from "../errors.ts";
import { pushImage } from "../images.ts";
import { createNetwork, type NetworkNode } from "../netns.ts";
import type { Components } from "../need.ts";
import { tempFolder } from "../temp.ts";
import { until } from "../until.ts";
import { podSubnet, SERVICE_CIDR } from "./addresses.ts";
import { startControlPlane, type ControlPlane } from "./control-plane.ts";
import { PAUSE, pauseImage } from "./images.ts";
import { createKubectl, type Kubectl } from "./kubectl.ts";
import type { Distribution } from "./node-files.ts";
import { addRoutes, startNode, type KubernetesNode } from "./node.ts";
import { startUpstream, type Upstream } from "./upstream.ts";

export type ContainerdSeries = "1.7" | "2.1" | "2.x";

export interface NodeWish {
  readonly containerd: ContainerdSeries;
  readonly labels?: Readonly<Record<string, string>>;
  /** Whose paths its containerd has; default kubeadm. */
  readonly distribution?: Distribution;
}

export interface ClusterOptions {
  /** All of CLUSTER_COMPONENTS, and a containerd for each series that is wished for. */
  readonly components: Components;
  readonly nodes: readonly NodeWish[];
  /** How many nodes may join later; default 0. */
  readonly spare?: number;
}

/** A real Kubernetes of its own on this machine, nothing of which outlives this process. */
export interface Cluster extends AsyncDisposable {
  readonly kubectl: Kubectl;
  readonly controlPlane: ControlPlane;
  readonly nodes: readonly KubernetesNode[];
  readonly upstream: Upstream;
  /** Of this process, as the nodes reach it. */
  readonly hostAddress: string;
  /** A file of an administrator's kubeconfig. */
  readonly kubeconfig: string;
  /** One of the spare ones; resolves when it is Ready. */
  addNode(wish: NodeWish): Promise<KubernetesNode>;
  /** Resolves when every node that runs is Ready, and no other. */
  untilReady(): Promise<void>;
}

export const CLUSTER_COMPONENTS = [
  "kubernetes",
  "etcd",
  "coredns",
  "cni-plugins",
  "catatonit",
  "docker-registry",
] as const;

/** Image names that begin with these are in the cluster's registry, which the nodes' hosts.toml files say. */
export const REGISTRY = "reg.example.test";
const REGISTRIES = [REGISTRY, "ghcr.io"];

/** Control plane and nodes, each in namespaces of its own; resolves when all nodes are Ready and Pods can be made. */
export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  const { components, nodes: wishes, spare = 0 } = options;
  await using starting = new AsyncDisposableStack();
  const home = await tempFolder("kubernetes");
  starting.defer(() => rm(home, { recursive: true, force: true, maxRetries: 3 }));
  const network = starting.use(await createNetwork({ nodes: 1 + wishes.length + spare }));
  const [place, ...places] = network.nodes;
  if (place === undefined) throw new TypeError("the control plane has a place of its own");
  for (const at of network.nodes) await addRoutes(at.netns, routesOf(at, place, places));

  const upstream = starting.use(
    await startUpstream({ component: components("docker-registry"), address: network.hostAddress }),
  );
  await pushImage(await pauseImage(components("catatonit")), {
    registry: upstream.url,
    repository: PAUSE.repository,
    tags: [PAUSE.tag],
  });
  const controlPlane = starting.use(
    await startControlPlane({
      components: {
        kubernetes: components("kubernetes"),
        etcd: components("etcd"),
        coredns: components("coredns"),
      },
      netns: place.netns,
      address: place.address,
      home: path.join(home, "control-plane"),
      nodeNames: places.map((_, index) => nameOf(index)),
    }),
  );
  const kubectl = createKubectl(components("kubernetes"), controlPlane.kubeconfig, home);

  const nodes: KubernetesNode[] = [];
  const machines = starting.use(new AsyncDisposableStack());
  const hosts = Object.fromEntries(REGISTRIES.map((registry) => [registry, upstream.hosts]));
  const join = async (wish: NodeWish, index: number): Promise<KubernetesNode> => {
    const at = places[index];
    if (at === undefined) throw new RigError("COMMAND_FAILED", "no spare node is left");
    const name = nameOf(index);
    const folder = path.join(home, name);
    await mkdir(folder);
    const node = await startNode({
      name,
      index,
      netns: at.netns,
      address: at.address,
      home: folder,
      components: {
        containerd: components(`containerd-${wish.containerd}`),
        kubernetes: components("kubernetes"),
        cni: components("cni-plugins"),
        catatonit: components("catatonit"),
      },
      kubeconfig: controlPlane.kubeconfigOf(name),
      sandboxImage: `${REGISTRY}/${PAUSE.repository}:${PAUSE.tag}`,
      hosts,
      ...(wish.labels && { labels: wish.labels }),
      ...(wish.distribution && { distribution: wish.distribution }),
    });
    return machines.use(node);
  };
  const untilReady = async (): Promise<void> => {
    const running = nodes.filter(({ machine }) => machine.running).length;
    await until("every node is Ready", async () => (await readyNodes(kubectl)) === running, {
      timeoutMs: 120_000,
      everyMs: 250,
      detail: () => nodes.map((node) => node.kubelet.log().slice(-2000)).join("\n"),
    });
  };
  nodes.push(...(await Promise.all(wishes.map(join))));
  await untilReady();
  await until(
    "Pods can be made",
    async () => (await kubectl.attempt(["get", "serviceaccount", "default"])).code === 0,
    { timeoutMs: 60_000, everyMs: 250 },
  );

  const running = starting.move();
  return {
    kubectl,
    controlPlane,
    nodes,
    upstream,
    hostAddress: network.hostAddress,
    kubeconfig: controlPlane.kubeconfig,
    async addNode(wish) {
      const node = await join(wish, nodes.length);
      nodes.push(node);
      await untilReady();
      return node;
    },
    untilReady,
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

const nameOf = (index: number): string => `node-${index + 1}`;

/** Services are addresses of the control plane's own, Pods lie behind their node. */
function routesOf(
  at: NetworkNode,
  place: NetworkNode,
  places: readonly NetworkNode[],
): { to: string; via: string }[] {
  const services = at === place ? [] : [{ to: SERVICE_CIDR, via: place.address }];
  const pods = places.flatMap((other, index) =>
    other === at ? [] : [{ to: podSubnet(index), via: other.address }],
  );
  return [...services, ...pods];
}

interface NodeList {
  readonly items: readonly {
    readonly metadata: { readonly name: string };
    readonly status: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
  }[];
}

async function readyNodes(kubectl: Kubectl): Promise<number> {
  const { items } = await kubectl.get<NodeList>(["nodes"]);
  return items.filter(({ status }) =>
    status.conditions?.some(({ type, status }) => type === "Ready" && status === "True"),
  ).length;
}
