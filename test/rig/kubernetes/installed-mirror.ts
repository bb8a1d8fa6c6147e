import { globSync, readFileSync } from "node:fs";
import path from "node:path";
import { mirrorImage } from "../../../packages/p2p-mirror/image/mirror-image.ts";
import { type Image, writeLayout } from "../../../packages/p2p-mirror/image/oci-layout.ts";
import type { MirrorStatus } from "../../../packages/p2p-mirror/src/status.ts";
import { pushImage } from "../images.ts";
import { readLayout } from "../images/layout.ts";
import { withLastRelease } from "../last-release.ts";
import { until } from "../until.ts";
import type { Cluster } from "./cluster.ts";
import type { KubernetesNode } from "./node.ts";

const CHECKOUT = path.resolve(import.meta.dirname, "../../..");
export const MANIFESTS = path.join(CHECKOUT, "manifests");

/** Where and as what the manifests install the mirror. */
export const NAMESPACE = "p2p-mirror";
const ADMIN = "http://127.0.0.1:24223";

interface Pod {
  readonly metadata: { readonly name: string; readonly deletionTimestamp?: string };
  readonly spec: { readonly nodeName: string; readonly containers: readonly { readonly image: string }[] };
}

/** The mirrors that run in a cluster, one on each node. */
export interface InstalledMirror {
  /** Resolves when a mirror is Ready on every node. */
  untilReady(timeoutMs?: number): Promise<void>;
  /** Name of the node's Pod. */
  podOn(node: KubernetesNode): Promise<string>;
  /** Names of the nodes whose Pods are to go. */
  leaving(): Promise<string[]>;
  /** Of all Pods' containers. */
  images(): Promise<string[]>;
  /** Whether its mirror answers that it is; no matter what the API server thinks. */
  isReady(node: KubernetesNode): Promise<boolean>;
  status(node: KubernetesNode): Promise<MirrorStatus>;
  /** Of its metrics, one that has no labels. */
  metric(node: KubernetesNode, name: string): Promise<number>;
  /** What the node has to say of it: the newest of its containers' output, and of kubelet's lines about it. */
  words(node: KubernetesNode): string;
  /** SIGKILL to its process; kubelet starts it again. */
  kill(node: KubernetesNode): Promise<void>;
  /** Resolves when another mirror than that of before the cause is ready there. */
  startedAnew(node: KubernetesNode, cause: () => void | Promise<void>): Promise<void>;
  /** Resolves when each of these nodes' mirrors knows all the others. */
  untilWhole(nodes: readonly KubernetesNode[], timeoutMs?: number): Promise<void>;
}

/** The container image as an OCI layout, as `npm run image` makes it. */
export async function mirrorLayout(folder: string): Promise<void> {
  const { image } = await mirrorImage({ checkout: CHECKOUT });
  await writeLayout(image, folder, { level: 1 });
}

/**
 * Builds the container image and pushes it to where the manifests' name of it leads in a cluster of the rig.
 * @param folder empty, for the image on its way
 * @returns the image's name and tag
 */
export async function pushMirror(registry: string, folder: string): Promise<string> {
  const { image } = await mirrorImage({ checkout: CHECKOUT });
  return push(image, registry, folder);
}

/** The same with the program of the last release in it, under a tag of its own. */
export async function pushLastRelease(registry: string, folder: string): Promise<string> {
  const { image } = await mirrorImage({ checkout: CHECKOUT });
  const last = await withLastRelease(image, path.join(folder, "release"));
  return push({ ...last, tag: `${image.tag}-last` }, registry, folder);
}

async function push(image: Image, registry: string, folder: string): Promise<string> {
  const layout = path.join(folder, "image");
  // As fast as can be: it does not go far.
  await writeLayout(image, layout, { level: 1 });
  const repository = image.name.slice(image.name.indexOf("/") + 1);
  await pushImage(await readLayout(layout), { registry, repository, tags: [image.tag] });
  return `${image.name}:${image.tag}`;
}

export function installedMirror({ kubectl }: Pick<Cluster, "kubectl">): InstalledMirror {
  const pods = async (...where: readonly string[]): Promise<readonly Pod[]> =>
    (await kubectl.get<{ items: readonly Pod[] }>(["pods", `--namespace=${NAMESPACE}`, ...where])).items;
  return {
    async untilReady(timeoutMs = 60_000) {
      const limit = `--timeout=${Math.ceil(timeoutMs / 1000)}s`;
      await kubectl.run(["rollout", "status", `--namespace=${NAMESPACE}`, limit, "daemonset/p2p-mirror"]);
    },
    podOn: async (node) =>
      (await pods(`--field-selector=spec.nodeName=${node.name}`))[0]?.metadata.name ?? "",
    leaving: async () =>
      (await pods()).flatMap(({ metadata, spec }) =>
        metadata.deletionTimestamp === undefined ? [] : [spec.nodeName],
      ),
    images: async () => (await pods()).flatMap(({ spec }) => spec.containers.map(({ image }) => image)),
    isReady,
    status,
    async metric(node, name) {
      const { body } = await ask(node, "/metrics");
      return Number(new RegExp(`^${name} (\\S+)$`, "m").exec(body)?.[1]);
    },
    words,
    async kill(node) {
      const ours = 'labels."io.kubernetes.container.name"==p2p-mirror';
      const containers = lines(await node.ctr(["containers", "list", "--quiet", ours]));
      for (const task of lines(await node.ctr(["tasks", "list", "--quiet"]))) {
        if (containers.includes(task)) await node.ctr(["tasks", "kill", "--signal=SIGKILL", task]);
      }
    },
    async startedAnew(node, cause) {
      const { startedAt } = (await status(node)).node;
      await cause();
      const isNew = async (): Promise<boolean> =>
        (await isReady(node)) && (await status(node)).node.startedAt !== startedAt;
      await until("kubelet has started a new mirror", isNew, {
        timeoutMs: 120_000,
        everyMs: 250,
        detail: () => words(node),
      });
    },
    async untilWhole(nodes, timeoutMs = 30_000) {
      const whole = async (): Promise<boolean> => {
        const all = await Promise.all(nodes.map(status));
        return all.every(({ peers }) => peers.length === nodes.length - 1);
      };
      await until("the mesh is whole", whole, { timeoutMs, everyMs: 250 });
    },
  };
}

function words(node: KubernetesNode): string {
  const outputs = globSync(node.machine.file(`/var/log/pods/${NAMESPACE}_*/*/*.log`)).map(
    (file) =>
      `${file.slice(file.indexOf(NAMESPACE))}:\n${lines(readFileSync(file, "utf8")).slice(-8).join("\n")}`,
  );
  const kubelet = lines(node.kubelet.log());
  const about = kubelet.filter((line) => line.includes("p2p-mirror"));
  return [
    ...outputs,
    `kubelet (${node.kubelet.running ? "runs" : "ended"}):`,
    ...about.slice(-12),
    "…",
    ...kubelet.slice(-4),
  ].join("\n");
}

const isReady = async (node: KubernetesNode): Promise<boolean> => (await ask(node, "/readyz")).code === 200;

async function status(node: KubernetesNode): Promise<MirrorStatus> {
  return JSON.parse((await ask(node, "/status")).body);
}

const lines = (text: string): string[] => text.split("\n").filter((line) => line !== "");

/** The admin endpoint is on loopback: it is asked from the node itself. */
async function ask(
  node: KubernetesNode,
  what: string,
): Promise<{ readonly code: number; readonly body: string }> {
  const script = `const answer = await fetch(${JSON.stringify(ADMIN + what)});
    process.stdout.write(JSON.stringify({ code: answer.status, body: await answer.text() }));`;
  const { stdout } = await node.machine.exec([process.execPath, "--input-type=module", "--eval", script]);
  return JSON.parse(stdout);
}
