import { blobsOf, pushImage } from "../test/rig/images.ts";
import { busyboxImage } from "../test/rig/kubernetes/images.ts";
import { direct } from "../test/rig/kubernetes/upstream.ts";
import { until } from "../test/rig/until.ts";
import { atMost, median, rounded, type BenchResult, type Target } from "./lib/bench.ts";
import { podStarter, type PodStart } from "./lib/pods/pod-start.ts";
import { openPodSite, WAYS, type PodSite, type Way } from "./lib/pods/site.ts";
import { residentMemory } from "./lib/programs.ts";
import { MIB } from "./lib/scene.ts";

export const name = "pod-start";
export const description =
  "on a real cluster, a Pod of an image that no node holds, until its container runs: with the mirror and without";

/**
 * Options: pairs (default 5, after one that is not counted), MiB of each of the three layers (default 20), Mbit/s of the
 * link to upstream (default `100,0`, one after the other; 0: as fast as it goes), nodes (default 1; the others have nothing
 * to do), containerd (default 2.x, or 1.7). Needs root. Every Pod has an image of its own; who is first takes turns.
 */
export async function run([
  pairs = "5",
  size = "20",
  links = "100,0",
  nodes = "1",
  containerd = "2.x",
]: readonly string[]): Promise<BenchResult> {
  if (containerd !== "2.x" && containerd !== "1.7") throw new TypeError(`no containerd ${containerd} here`);
  await using stack = new AsyncDisposableStack();
  const site = await openPodSite(stack, { nodes: Number(nodes), containerd });
  const start = await startOfPods(site, Number(size) * MIB);
  const rows: Record<string, string | number>[] = [];
  const targets: Target[] = [atMost(`apply to all Ready, nodes: ${nodes}`, site.readySeconds, 30, "s")];
  for (const mbits of links.split(",").map(Number)) {
    const link = mbits === 0 ? "no limit" : `${mbits} Mbit/s`;
    site.cluster.upstream.setRate(mbits === 0 ? undefined : (mbits * 1e6) / 8);
    const counted: Pair[] = [];
    for (let nth = 0; nth <= Number(pairs); nth += 1) {
      const pair = await startBoth(start, nth % 2 === 0);
      // The first one warms up: a daemon runs for months.
      if (nth === 0) continue;
      counted.push(pair);
      rows.push({ link, pair: nth, ...rowOf(pair) });
    }
    targets.push(
      atMost(`${link}: median ratio with / without`, median(counted.map(ratioOf)), 1.03),
      atMost(`${link}: largest difference`, Math.max(...counted.map(differenceOf)), 0.3, "s"),
    );
  }
  return { rows, targets };
}

type Pair = Readonly<Record<Way, PodStart>>;

async function startBoth(start: StartPodOf, withFirst: boolean): Promise<Pair> {
  if (withFirst) return { with: await start("with"), without: await start("without") };
  return { without: await start("without"), with: await start("with") };
}

const ratioOf = (pair: Pair): number => pair.with.seconds / pair.without.seconds;
const differenceOf = (pair: Pair): number => pair.with.seconds - pair.without.seconds;

const rowOf = (pair: Pair): Record<string, number | string> => ({
  "without s": rounded(pair.without.seconds),
  "with s": rounded(pair.with.seconds),
  "pull without s": rounded(pair.without.pullSeconds),
  "pull with s": rounded(pair.with.pullSeconds),
  ratio: rounded(ratioOf(pair)),
  "difference s": rounded(differenceOf(pair)),
  "CPU % without, with": `${pair.without.load.toFixed(0)}, ${pair.with.load.toFixed(0)}`,
});

type StartPodOf = (way: Way) => Promise<PodStart>;

/** Starts a Pod of a new image, one way or the other, and looks that it went that way. */
async function startOfPods(site: PodSite, layerBytes: number): Promise<StartPodOf> {
  const { cluster, mirror, busybox } = site;
  const { upstream } = cluster;
  const [node] = cluster.nodes;
  if (node === undefined) throw new TypeError("a cluster has a node");
  const startPod = await podStarter(site, node);
  let pods = 0;
  return async (way) => {
    const pod = `pod-${++pods}`;
    const layers = [layerBytes, layerBytes, layerBytes];
    const image = await busyboxImage(busybox, { seed: pod, layers });
    await pushImage(image, { registry: upstream.url, repository: pod, tags: ["1"] });
    const bytes = blobsOf(image).reduce((sum, { bytes: blob }) => sum + blob.length, 0);
    // What is pulled is in containerd's store, unpacked, and in the mirror's cache.
    await residentMemory(4 * bytes);
    await until("the mirror has nothing to do", async () => (await mirror.status(node)).flights.length === 0);
    const took = await startPod(pod, `${WAYS[way]}/${pod}:1`);
    const asked = upstream.requests.filter(({ url }) => url.startsWith(`/v2/${pod}/`));
    if (asked.length === 0 || direct(asked).length !== (way === "with" ? 0 : asked.length))
      throw new Error(`${pod} did not come ${way} the mirror`);
    return took;
  };
}
