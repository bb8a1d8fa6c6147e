import { join } from "node:path";
import { accountOf } from "../../../test/rig/kubernetes/account.ts";
import type { KubernetesNode } from "../../../test/rig/kubernetes/node.ts";
import { CONTAINERD_SOCKET } from "../../../test/rig/kubernetes/node-files.ts";
import { podOf } from "../../../test/rig/kubernetes/workloads.ts";
import { withoutProxies } from "../../../test/rig/process.ts";
import { until } from "../../../test/rig/until.ts";
import { LoadMeter } from "../crowd/machine.ts";
import type { PodSite } from "./site.ts";

export interface PodStart {
  /** From the request that creates the Pod until containerd has started its container. */
  readonly seconds: number;
  /** Of them, as kubelet says it: the pull, unpacking included. */
  readonly pullSeconds: number;
  /** Percent of all cores that were busy meanwhile. */
  readonly load: number;
}

const NAMESPACE = "/api/v1/namespaces/default";

/** Starts Pods on a node, one at a time. Kubernetes itself says whole seconds, so both ends are taken where they happen. */
export type StartPod = (name: string, image: string) => Promise<PodStart>;

export async function podStarter(site: PodSite, node: KubernetesNode): Promise<StartPod> {
  const { cluster, containerd, folder } = site;
  const api = await accountOf(cluster.kubeconfig, join(folder, "account"));
  const { signal } = new AbortController();
  // Ends with the machine.
  const events = await node.machine.start(
    "ctr events",
    [containerd.bin("ctr"), "--address", CONTAINERD_SOCKET, "--namespace", "k8s.io", "events"],
    withoutProxies(containerd.env),
  );
  const get = async <T>(path: string): Promise<T> =>
    (await api.ask({ method: "GET", path: `${NAMESPACE}/${path}` }, signal)) as T;
  return async (name, image) => {
    using meter = await LoadMeter.start();
    const began = Date.now();
    const body = podOf(name, { image, node: node.name });
    await api.ask({ method: "POST", path: `${NAMESPACE}/pods`, body }, signal);
    const slow = { timeoutMs: 300_000, everyMs: 250 };
    const id = await until("the container runs", async () => containerOf(await get(`pods/${name}`)), slow);
    const started = await until("containerd has said so", () => startOf(id, events.process.log()));
    const { mean } = await meter.stop();
    const about = encodeURIComponent(`involvedObject.name=${name},reason=Pulled`);
    const pullSeconds = await until("kubelet has said how long it pulled", async () =>
      pullOf(await get(`events?fieldSelector=${about}`)),
    );
    await cluster.kubectl.run(["delete", "pod", name, "--wait"]);
    return { seconds: (started - began) / 1000, pullSeconds, load: mean };
  };
}

interface Pod {
  readonly status: {
    readonly containerStatuses?: readonly {
      readonly containerID?: string;
      readonly state?: { readonly running?: object };
    }[];
  };
}

interface Events {
  readonly items: readonly { readonly message: string }[];
}

function containerOf({ status }: Pod): string | undefined {
  const [container] = status.containerStatuses ?? [];
  return container?.state?.running && container.containerID?.replace("containerd://", "");
}

/** Milliseconds since the epoch. */
function startOf(id: string, log: string): number | undefined {
  const line = log.split("\n").find((one) => one.includes(" /tasks/start ") && one.includes(id));
  const [, day, time] = /^(\S+) (\d+:\d+:\d+\.\d{3})\d* \+0000 /.exec(line ?? "") ?? [];
  return day === undefined ? undefined : Date.parse(`${day}T${time}Z`);
}

/** As in `Successfully pulled image "…" in 1m2.5s (1m2.5s including waiting)`. */
function pullOf({ items }: Events): number | undefined {
  const [, minutes = "0", number, unit] =
    /Successfully pulled .* in (?:(\d+)m)?([\d.]+)(m?s) \(/.exec(items[0]?.message ?? "") ?? [];
  if (number === undefined) return undefined;
  return Number(minutes) * 60 + Number(number) * (unit === "ms" ? 0.001 : 1);
}
