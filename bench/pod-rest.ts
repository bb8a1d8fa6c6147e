import { NAMESPACE } from "../test/rig/kubernetes/installed-mirror.ts";
import { createPulls } from "../test/rig/kubernetes/pulls.ts";
import { until } from "../test/rig/until.ts";
import { cpuAtRest, restTargets } from "./lib/at-rest.ts";
import { rounded, type BenchResult } from "./lib/bench.ts";
import { DIGESTS, pullMany } from "./lib/held.ts";
import { openPodSite } from "./lib/pods/site.ts";
import { MIB } from "./lib/scene.ts";

export const name = "pod-rest";
export const description =
  "on a real cluster, resident memory and CPU of a Pod of the mirror that holds 1,000 digests and has nothing to do";

/**
 * Options: seconds watched (default 120), containerd (default 2.x, or 1.7). Needs root. Of two nodes one pulls the images,
 * and its mirror is started anew then.
 */
export async function run([seconds = "120", containerd = "2.x"]: readonly string[]): Promise<BenchResult> {
  if (containerd !== "2.x" && containerd !== "1.7") throw new TypeError(`no containerd ${containerd} here`);
  await using stack = new AsyncDisposableStack();
  const { cluster, mirror } = await openPodSite(stack, { nodes: 2, containerd });
  const [node] = cluster.nodes;
  if (node === undefined) throw new TypeError("a cluster has nodes");
  const pulls = createPulls(cluster);
  await pullMany(async (layers) => pulls.pull(node, await pulls.newImage(layers)));
  const pod = await mirror.podOn(node);
  await mirror.startedAnew(node, async () => {
    await cluster.kubectl.run(["delete", "pod", `--namespace=${NAMESPACE}`, pod]);
  });
  await mirror.untilWhole(cluster.nodes);
  const advertised = (): Promise<number> => mirror.metric(node, "p2p_mirror_dht_records_advertised");
  await until("all are advertised", async () => (await advertised()) >= DIGESTS, { timeoutMs: 60_000 });
  const percent = await cpuAtRest(Number(seconds), () => mirror.metric(node, "process_cpu_seconds_total"));
  const resident = (await mirror.metric(node, "process_resident_memory_bytes")) / MIB;
  return {
    rows: [
      {
        "digests advertised": await advertised(),
        "blobs in the cache": await mirror.metric(node, "p2p_mirror_cache_blobs"),
        "RSS MiB": rounded(resident),
        "% of a core": rounded(percent),
      },
    ],
    targets: restTargets(resident, percent),
  };
}
