/**
 * Nodes and upstream fail in the middle of a pull, and the pull succeeds: real containerds in network namespaces, links
 * shaped so that there is a middle.
 */
import { setTimeout as outage } from "node:timers/promises";
import t, { type Test } from "tap";
import {
  faultsIn,
  freshImage,
  hold,
  holdsAll,
  midway,
  MIB,
  mirrorsAreBack,
  pastTheMirror,
  received,
  seconds,
  start,
  type Pushed,
} from "./faults-support.ts";
import { startCluster, type Cluster, type ClusterNode } from "./rig/cluster.ts";
import type { ComponentName } from "./rig/components.ts";
import { need } from "./rig/need.ts";
import { until } from "./rig/until.ts";

interface Case {
  readonly name: ComponentName;
  /** All faults, or those in which containerd itself has a part. */
  readonly all: boolean;
}

const CASES: readonly Case[] = [
  { name: "containerd-1.7", all: true },
  { name: "containerd-2.1", all: false },
];

const LAYER = 9 * MIB;
/** Nine MiB take two seconds. */
const SLOW = "40mbit";

for (const { name, all } of CASES) {
  await t.test(name, async (t) => {
    const components = await need(t, { root: true, netns: true, components: [name, "docker-registry"] });
    if (components === undefined) return;
    await using cluster = await startCluster({
      registry: components("docker-registry"),
      containerd: components(name),
      nodes: 3,
    });
    // `pulling` pulls when the fault strikes, `serving` has the image before and is the one that fails. The first one is
    // the bootstrap address of the others.
    const [other, pulling, serving] = cluster.nodes;
    if (other === undefined || pulling === undefined || serving === undefined)
      throw new TypeError("three nodes");
    const fault = faultsIn(t, () => restore(cluster));

    await fault(
      "the serving mirror stops without a word (SIGSTOP): upstream goes on within seconds",
      async (t) => {
        const image = await freshImage(cluster, LAYER);
        await hold([serving], image);
        await slowPeer(serving);
        const took = await pullThrough(t, pulling, image, {
          from: "peer",
          fault: async () => serving.mirror.signal("SIGSTOP"),
          next: "upstream",
        });
        t.ok(took < 5_000, "about 1.5 s are the rule, more a loaded machine's");
      },
    );

    await fault(
      "containerd restarts on the serving node, which has the image in containerd alone",
      async (t) => {
        const image = await freshImage(cluster, LAYER);
        const before = await received(serving.mirror);
        await pastTheMirror(cluster, serving, () => hold([serving], image));
        await slowPeer(serving);
        await pullThrough(t, pulling, image, { from: "peer", fault: () => serving.containerd.restart() });
        t.equal(await received(serving.mirror), before, "the serving mirror never fetched anything itself");
      },
    );

    if (!all) return;
    await fault(
      "upstream is killed in the middle of a blob that nobody else has, and is back 2 s later",
      async (t) => {
        const image = await freshImage(cluster, LAYER);
        await slowUpstream(cluster);
        await pullThrough(t, pulling, image, {
          from: "upstream",
          fault: async () => {
            await cluster.upstream.kill();
            await outage(2_000);
            await cluster.upstream.start();
          },
        });
        t.equal(
          (await pulling.mirror.metrics()).sum("p2p_mirror_http_cuts_total"),
          0,
          "containerd noticed nothing",
        );
      },
    );

    await fault("upstream is killed while a peer delivers", async (t) => {
      const image = await freshImage(cluster, LAYER);
      await hold([serving], image);
      await slowPeer(serving);
      await pullThrough(t, pulling, image, { from: "peer", fault: () => cluster.upstream.kill() });
    });

    await fault("the serving mirror is killed: the second holder goes on", async (t) => {
      const image = await freshImage(cluster, LAYER);
      await hold([serving, other], image);
      await slowPeer(serving);
      await slowPeer(other);
      const before = await received(pulling.mirror, "upstream");
      await pullThrough(t, pulling, image, { from: "peer", fault: () => serving.mirror.kill() });
      t.equal(await received(pulling.mirror, "upstream"), before, "upstream was not asked for content");
    });

    await fault("the only serving mirror is killed: upstream goes on", async (t) => {
      const image = await freshImage(cluster, LAYER);
      await hold([serving], image);
      await slowPeer(serving);
      await pullThrough(t, pulling, image, {
        from: "peer",
        fault: () => serving.mirror.kill(),
        next: "upstream",
      });
    });

    await fault("the serving node's network is gone: upstream goes on", async (t) => {
      const image = await freshImage(cluster, LAYER);
      await hold([serving], image);
      await slowPeer(serving);
      const took = await pullThrough(t, pulling, image, {
        from: "peer",
        fault: () => link(serving, "down"),
        next: "upstream",
      });
      t.ok(took < 5_000, "about 1.5 s, too");
    });

    await fault("upstream dies in the middle of a blob, and a node that has it comes up", async (t) => {
      const image = await freshImage(cluster, LAYER);
      await hold([serving], image);
      await serving.mirror.stop();
      await slowUpstream(cluster);
      await pullThrough(t, pulling, image, {
        from: "upstream",
        fault: async () => {
          await cluster.upstream.kill();
          await serving.mirror.start();
        },
        next: "peer",
      });
    });
  });
}

/** Pulls, causes the fault in the middle, and looks at every byte. Milliseconds from the fault to the next byte. */
async function pullThrough(
  t: Test,
  node: ClusterNode,
  image: Pushed,
  what: {
    readonly from: "peer" | "upstream";
    readonly fault: () => Promise<void>;
    /** Where the next bytes come from; default: wherever. */
    readonly next?: "peer" | "upstream";
  },
): Promise<number> {
  const { mirror } = node;
  const before = await received(mirror, what.from);
  const began = performance.now();
  const pull = start(node.cri.pull(image.reference));
  await midway(mirror, pull, { source: what.from, before, bytes: 2 * MIB });
  const struck = performance.now();
  await what.fault();
  const had = await received(mirror, what.next);
  await until("bytes come again", async () => (await received(mirror, what.next)) > had, { everyMs: 10 });
  const took = performance.now() - struck;
  await pull.result;
  t.comment(`next bytes ${(took / 1000).toFixed(2)} s after the fault, pull in ${seconds(began)}`);
  await holdsAll(t, node, image);
  return took;
}

async function slowPeer(node: ClusterNode): Promise<void> {
  await node.network.shape({ egress: SLOW });
}

async function slowUpstream(cluster: Cluster): Promise<void> {
  await cluster.network.nodes[0]?.shape({ egress: SLOW });
}

async function link(node: ClusterNode, state: "up" | "down"): Promise<void> {
  await node.network.exec(["ip", "link", "set", "eth0", state]);
}

async function restore(cluster: Cluster): Promise<void> {
  for (const place of cluster.network.nodes) await place.shape({});
  await cluster.upstream.start();
  for (const node of cluster.nodes) {
    await link(node, "up");
    node.mirror.signal("SIGCONT");
  }
  await mirrorsAreBack(cluster);
}
