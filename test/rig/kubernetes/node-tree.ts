import { PROGRAMS } from "./machine.ts";
import type { KubernetesNode } from "./node.ts";
import { treeOf } from "./tree.ts";

/** What is a machine's own; the rest is that of the machine below. */
const OWN = ["/etc", "/opt", "/run", "/var"];

/** These change as Pods come and go. */
const OF_PODS = ["/run/cni", "/run/netns", "/var/lib/cni", "/var/lib/kubelet", "/var/log"];

/** Wherever containerd has its state. */
const SHIM_SOCKETS = "/run/containerd";

/** As treeOf, by absolute path. */
export type NodeTree = Readonly<Record<string, string>>;

/** Everything on a node's own file systems, but for what containerd, CNI and kubelet keep of images and Pods. */
export async function nodeTreeOf({ machine, paths }: KubernetesNode): Promise<NodeTree> {
  const passedOver = [...OF_PODS, SHIM_SOCKETS, paths.root, paths.state, ...PROGRAMS];
  const found: Record<string, string> = {};
  for (const folder of OWN) {
    const tree = await treeOf(machine.file(folder), (below) => passedOver.includes(`${folder}/${below}`));
    for (const [below, what] of Object.entries(tree)) found[`${folder}/${below}`] = what;
  }
  return found;
}

/** Paths that are in one alone, or are not the same in both. */
export const changes = (before: NodeTree, after: NodeTree): string[] =>
  [...new Set([...Object.keys(before), ...Object.keys(after)])]
    .filter((path) => before[path] !== after[path])
    .toSorted();

/** What has the mirror's name on a node, as kubelet's files of its Pods; containerd's copy of the image is left out. */
export async function namedAfterMirror({ machine, paths }: KubernetesNode): Promise<string[]> {
  const passedOver = [paths.root, ...PROGRAMS];
  const prune = passedOver.flatMap((folder) => ["-path", folder, "-prune", "-o"]);
  const find = ["find", ...OWN, "-xdev", ...prune, "-name", "*p2p-mirror*", "-print"];
  return (await machine.exec(find)).stdout.split("\n").filter((line) => line !== "");
}
