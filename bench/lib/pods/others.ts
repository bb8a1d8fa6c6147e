import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { component } from "../../../test/rig/components.ts";
import { startDockerRegistry } from "../../../test/rig/docker-registry.ts";
import { writeHosts } from "../../../test/rig/hosts.ts";
import type { KubernetesNode } from "../../../test/rig/kubernetes/node.ts";
import { startBareRelay } from "../bare-relay.ts";
import { WAYS, type PodSite } from "./site.ts";

/** What else can stand between a node and the registry, on the node itself. */
export const OTHERS = ["cache", "relay"] as const;
export type Other = (typeof OTHERS)[number];

/** Starts one on a node, whose containerd asks it first for images of its name, and no other. */
export async function startOther(
  stack: AsyncDisposableStack,
  other: Other,
  site: PodSite,
  node: KubernetesNode,
): Promise<void> {
  const { netns, address } = node.machine;
  const { server: remote } = site.cluster.upstream.hosts;
  if (remote === undefined) throw new TypeError("upstream has a URL");
  const start = {
    // As people have it who put a registry on each node.
    cache: async () =>
      startDockerRegistry({ component: await component("distribution"), netns, address, remote }),
    relay: async () => {
      await mkdir(join(site.folder, "relay"));
      return startBareRelay(remote, join(site.folder, "relay/"), netns);
    },
  } satisfies Record<Other, unknown>;
  const { url } = stack.use(await start[other]());
  const certsDir = node.machine.file(node.paths.certsDir);
  await writeHosts(certsDir, WAYS[other], { server: remote, mirrors: [url] });
}
