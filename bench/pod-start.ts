import { blobsOf, pushImage } from "../test/rig/images.ts";
import { busyboxImage } from "../test/rig/kubernetes/images.ts";
import type { KubernetesNode } from "../test/rig/kubernetes/node.ts";
import { until } from "../test/rig/until.ts";
import { atMost, median, rounded, type BenchResult, type Target } from "./lib/bench.ts";
import { OTHERS, startOther, type Other } from "./lib/pods/others.ts";
import { podStarter, type PodStart } from "./lib/pods/pod-start.ts";
import { openPodSite, WAYS, type PodSite, type Way } from "./lib/pods/site.ts";
import { residentMemory } from "./lib/programs.ts";
import { MIB } from "./lib/scene.ts";

export const name = "pod-start";
export const description =
  "on a real cluster, a Pod of an image that no node holds, until its container runs: with the mirror and without";

/**
 * Options: rounds (default 5, after one that is not counted), MiB of each of the three layers (default 20), Mbit/s of the
 * link to upstream (default `100,0`, one after the other; 0: as fast as it goes), nodes (default 1; the others have nothing
 * to do), containerd (default 2.x, or 1.7), other ways beside these two (`cache,relay`: a registry on the node as a
 * pull-through cache; the least relay; default none). Needs root. Every Pod has an image of its own; who is first takes turns.
 */
export async function run([
  rounds = "5",
  size = "20",
  links = "100,0",
  nodes = "1",
  containerd = "2.x",
  more = "",
]: readonly string[]): Promise<BenchResult> {
  if (containerd !== "2.x" && containerd !== "1.7") throw new TypeError(`no containerd ${containerd} here`);
  const others = othersOf(more);
  const ways: Way[] = ["with", "without", ...others];
  await using stack = new AsyncDisposableStack();
  const site = await openPodSite(stack, { nodes: Number(nodes), containerd });
  const [node] = site.cluster.nodes;
  if (node === undefined) throw new TypeError("a cluster has a node");
  for (const other of others) await startOther(stack, other, site, node);
  const start = await startOfPods(site, node, Number(size) * MIB);
  const rows: Record<string, string | number>[] = [];
  const targets: Target[] = [atMost(`apply to all Ready, nodes: ${nodes}`, site.readySeconds, 30, "s")];
  for (const mbits of links.split(",").map(Number)) {
    const link = mbits === 0 ? "no limit" : `${mbits} Mbit/s`;
    site.cluster.upstream.setRate(mbits === 0 ? undefined : (mbits * 1e6) / 8);
    const counted: Round[] = [];
    for (let nth = 0; nth <= Number(rounds); nth += 1) {
      const round: Round = new Map();
      const first = nth % ways.length;
      for (const way of [...ways.slice(first), ...ways.slice(0, first)]) round.set(way, await start(way));
      // The first one warms up: a daemon runs for months.
      if (nth === 0) continue;
      counted.push(round);
      rows.push({ link, round: nth, ...rowOf(round, ways) });
    }
    const ratios = counted.map((round) => ratioOf(round, "with"));
    const differences = counted.map((round) => differenceOf(round, "with"));
    targets.push(
      atMost(`${link}: median ratio with / without`, median(ratios), 1.03),
      atMost(`${link}: largest difference`, Math.max(...differences), 0.3, "s"),
    );
  }
  return { rows, targets };
}

function othersOf(list: string): Other[] {
  const names = list.split(",").filter((one) => one !== "");
  return names.map((name) => {
    const other = OTHERS.find((one) => one === name);
    if (other === undefined) throw new TypeError(`no way ${name} here`);
    return other;
  });
}

/** Of each way one. */
type Round = Map<Way, PodStart>;

function of(round: Round, way: Way): PodStart {
  const start = round.get(way);
  if (start === undefined) throw new TypeError(`no Pod started ${way}`);
  return start;
}

const ratioOf = (round: Round, way: Way): number => of(round, way).seconds / of(round, "without").seconds;
const differenceOf = (round: Round, way: Way): number =>
  of(round, way).seconds - of(round, "without").seconds;

function rowOf(round: Round, ways: readonly Way[]): Record<string, number | string> {
  const columns = (
    name: (way: Way) => string,
    value: (way: Way) => number,
    among = ways,
  ): Record<string, number> => Object.fromEntries(among.map((way) => [name(way), rounded(value(way))]));
  const compared = ways.filter((way) => way !== "without");
  return {
    ...columns(
      (way) => `${way} s`,
      (way) => of(round, way).seconds,
    ),
    ...columns(
      (way) => `pull ${way} s`,
      (way) => of(round, way).pullSeconds,
    ),
    ...columns(
      (way) => `ratio ${way}`,
      (way) => ratioOf(round, way),
      compared,
    ),
    ...columns(
      (way) => `difference ${way} s`,
      (way) => differenceOf(round, way),
      compared,
    ),
    [`CPU % ${ways.join(", ")}`]: ways.map((way) => of(round, way).load.toFixed(0)).join(", "),
  };
}

/** What upstream's requests say they come from. */
const AGENTS: Readonly<Record<Way, string>> = {
  with: "p2p-mirror",
  without: "containerd/",
  cache: "Go-http-client/",
  relay: "bare-relay",
};

type StartPodOf = (way: Way) => Promise<PodStart>;

/** Starts a Pod of a new image, one way or another, and looks that it went that way. */
async function startOfPods(site: PodSite, node: KubernetesNode, layerBytes: number): Promise<StartPodOf> {
  const { cluster, mirror, busybox } = site;
  const { upstream } = cluster;
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
    const its = asked.filter(({ headers }) => String(headers["user-agent"]).startsWith(AGENTS[way]));
    if (asked.length === 0 || its.length !== asked.length)
      throw new Error(`${pod} did not come by the way "${way}"`);
    const copies = upstream.bytesOf(pod) / bytes;
    if (copies < 1 || copies > 1.01) throw new Error(`${pod} left upstream ${copies} times, ${way}`);
    return took;
  };
}
