import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { component, type Component, type ComponentName } from "../../../test/rig/components.ts";
import {
  CLUSTER_COMPONENTS,
  REGISTRY,
  startCluster,
  type Cluster,
  type ContainerdSeries,
} from "../../../test/rig/kubernetes/cluster.ts";
import type { Components } from "../../../test/rig/need.ts";
import {
  installedMirror,
  MANIFESTS,
  NAMESPACE,
  pushMirror,
  type InstalledMirror,
} from "../../../test/rig/kubernetes/installed-mirror.ts";

/**
 * The same registry by several names: of one, containerd asks the mirror first; the hosts.toml of the others is left as it was,
 * or is that of `startOther`.
 */
export const WAYS = {
  with: REGISTRY,
  without: "ghcr.io",
  cache: "cached.example.test",
  relay: "relayed.example.test",
} as const;
export type Way = keyof typeof WAYS;

const CONFIG = {
  cache_size: "20GiB",
  cache_min_free: "1%",
  registries: Object.fromEntries(
    [WAYS.without, WAYS.cache, WAYS.relay].map((registry) => [registry, { mirror: false }]),
  ),
};

export interface PodSite {
  readonly cluster: Cluster;
  readonly mirror: InstalledMirror;
  /** From `kubectl apply` until a mirror was Ready on every node. */
  readonly readySeconds: number;
  /** Of its nodes. */
  readonly containerd: Component;
  readonly busybox: Component;
  /** Its own folder, which goes with it. */
  readonly folder: string;
}

/** A cluster of this machine with the mirror installed on all its nodes. Needs root, and what its tests need. */
export async function openPodSite(
  stack: AsyncDisposableStack,
  wish: { readonly nodes: number; readonly containerd: ContainerdSeries },
): Promise<PodSite> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), "bench-pods-")));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  const components = await componentsOf([...CLUSTER_COMPONENTS, `containerd-${wish.containerd}`, "busybox"]);
  const nodes = Array.from({ length: wish.nodes }, () => ({ containerd: wish.containerd }));
  const cluster = stack.use(await startCluster({ components, nodes }));
  await mkdir(join(folder, "mirror"));
  await pushMirror(cluster.upstream.url, join(folder, "mirror"));
  const overlay = join(folder, "overlay");
  await mkdir(overlay);
  await writeFile(join(overlay, "config.yaml"), JSON.stringify(CONFIG));
  const kustomization = {
    apiVersion: "kustomize.config.k8s.io/v1beta1",
    kind: "Kustomization",
    resources: [relative(overlay, join(MANIFESTS, "overlays/dev"))],
    configMapGenerator: [
      { name: "p2p-mirror", namespace: NAMESPACE, behavior: "merge", files: ["config.yaml"] },
    ],
  };
  await writeFile(join(overlay, "kustomization.yaml"), JSON.stringify(kustomization));
  const mirror = installedMirror(cluster);
  const begin = performance.now();
  await cluster.kubectl.run(["apply", "--kustomize", overlay]);
  await mirror.untilReady();
  const readySeconds = (performance.now() - begin) / 1000;
  await mirror.untilWhole(cluster.nodes);
  const containerd = components(`containerd-${wish.containerd}`);
  return { cluster, mirror, readySeconds, containerd, busybox: components("busybox"), folder };
}

async function componentsOf(names: readonly ComponentName[]): Promise<Components> {
  const found = new Map<ComponentName, Component>();
  for (const name of names) found.set(name, await component(name));
  return (name) => {
    const one = found.get(name);
    if (one === undefined) throw new TypeError(`${name} was not asked for`);
    return one;
  };
}
