/** The node that pulls fails itself, in the middle: its containerd, or the mirror beside it. */
import t from "tap";
import {
  advertises,
  faultsIn,
  freshImage,
  holdsAll,
  midway,
  MIB,
  mirrorsAreBack,
  received,
  seconds,
  start,
  type Pushed,
} from "./faults-support.ts";
import { startCluster, type Cluster, type ClusterNode } from "./rig/cluster.ts";
import type { ComponentName } from "./rig/components.ts";
import { blobsOf } from "./rig/images.ts";
import { need } from "./rig/need.ts";
import { until } from "./rig/until.ts";

interface Case {
  readonly name: ComponentName;
  /** Also the orderly ends, which take their time. */
  readonly slow?: boolean;
}

const CASES: readonly Case[] = [{ name: "containerd-1.7" }, { name: "containerd-2.1", slow: true }];

const LAYER = 10 * MIB;

for (const { name, slow = false } of CASES) {
  await t.test(name, async (t) => {
    const components = await need(t, { root: true, netns: true, components: [name, "docker-registry"] });
    if (components === undefined) return;
    await using cluster = await startCluster({
      registry: components("docker-registry"),
      containerd: components(name),
      nodes: 2,
    });
    const [other, node] = cluster.nodes;
    if (other === undefined || node === undefined) throw new TypeError("two nodes");

    const fault = faultsIn(t, () => restore(cluster));

    await fault(
      "its containerd is killed: the next pull succeeds, and the others find what it holds",
      async (t) => {
        const image = await freshImage(cluster, LAYER);
        const pull = await pullHalf(cluster, node, image, "40mbit");
        await node.containerd.kill();
        await t.rejects(pull.result, "containerd is dead, and its pull with it");
        await node.containerd.restart();
        await cluster.network.nodes[0]?.shape({});
        const began = performance.now();
        await until(
          "the mirror is connected again",
          async () => (await node.mirror.metrics()).sum("p2p_mirror_containerd_up") === 1,
        );
        t.comment(`connected again after ${seconds(began)}`);
        await node.cri.pull(image.reference);
        await holdsAll(t, node, image);
        await advertises(node.mirror, blobsOf(image.content).length + 1);
        await cluster.upstream.kill();
        await other.cri.pull(image.reference);
        await holdsAll(t, other, image);
      },
    );

    await fault("its mirror is killed: containerd gets the rest from upstream", async (t) => {
      const image = await freshImage(cluster, LAYER);
      const pull = await pullHalf(cluster, node, image, "40mbit");
      const began = performance.now();
      await node.mirror.kill();
      await pull.result;
      t.comment(`pulled ${seconds(began)} after the kill`);
      await holdsAll(t, node, image);
    });

    if (!slow) return;
    await fault("its mirror is stopped: what it has begun is finished while it drains", async (t) => {
      const image = await freshImage(cluster, LAYER);
      const pull = await pullHalf(cluster, node, image, "40mbit");
      const began = performance.now();
      const ended = await node.mirror.stop();
      t.comment(`ended after ${seconds(began)}`);
      t.same(ended, { code: 0, signal: null });
      t.notMatch(node.mirror.log(), /blob cut short/);
      await pull.result;
      await holdsAll(t, node, image);
    });

    await fault(
      "its mirror is stopped in a pull too long to wait for: the rest comes from upstream",
      async (t) => {
        const image = await freshImage(cluster, LAYER);
        const pull = await pullHalf(cluster, node, image, "6mbit", MIB);
        const began = performance.now();
        const ended = await node.mirror.stop();
        const took = performance.now() - began;
        t.comment(`ended after ${seconds(began)}`);
        t.same(ended, { code: 0, signal: null });
        t.ok(took < 12_500, "ten seconds, and what a busy machine adds");
        t.match(node.mirror.log(), /blob cut short/);
        await cluster.network.nodes[0]?.shape({});
        await pull.result;
        await holdsAll(t, node, image);
      },
    );
  });
}

/** A pull that has got some bytes from upstream over a slow link, and goes on. */
async function pullHalf(
  cluster: Cluster,
  node: ClusterNode,
  image: Pushed,
  rate: string,
  bytes = 3 * MIB,
): Promise<ReturnType<typeof start<string>>> {
  await cluster.network.nodes[0]?.shape({ egress: rate });
  const before = await received(node.mirror, "upstream");
  const pull = start(node.cri.pull(image.reference));
  await midway(node.mirror, pull, { source: "upstream", before, bytes });
  return pull;
}

async function restore(cluster: Cluster): Promise<void> {
  await cluster.network.nodes[0]?.shape({});
  await cluster.upstream.start();
  await mirrorsAreBack(cluster);
}
