/**
 * A cluster of real containerds pulls through the mirrors on its own nodes: what one node holds the others get from it,
 * and when upstream is gone everything still pulls, by tag and by digest.
 */
import t, { type Test } from "tap";
import type { ComponentName } from "./rig/components.ts";
import { makeImage, makeMultiArch, pushImage, type Content } from "./rig/images.ts";
import { startCluster, type ClusterNode } from "./rig/cluster.ts";
import { need } from "./rig/need.ts";
import { until } from "./rig/until.ts";

const MIB = 1024 * 1024;

interface Case {
  readonly name: ComponentName;
  readonly chunked?: boolean;
}

const CASES: readonly Case[] = [
  { name: "containerd-1.6" },
  { name: "containerd-1.7" },
  { name: "containerd-2.1" },
  { name: "containerd-2.1", chunked: true },
  { name: "containerd-2.x" },
];

for (const { name, chunked = false } of CASES) {
  await t.test(`${name}${chunked ? " in chunked mode" : ""}: three nodes`, async (t) => {
    const components = await need(t, { root: true, netns: true, components: [name, "docker-registry"] });
    if (components === undefined) return;
    await using cluster = await startCluster({
      registry: components("docker-registry"),
      containerd: components(name),
      nodes: 3,
      chunked,
    });
    const [first, second, third] = cluster.nodes;
    if (first === undefined || second === undefined || third === undefined)
      throw new TypeError("three nodes");
    const gzip = makeMultiArch({ seed: `${name} gzip`, layers: [100_000, 20 * MIB], compression: "gzip" });
    const zstd = makeImage({ seed: `${name} zstd`, layers: [3 * MIB], compression: "zstd" });
    const docker = makeMultiArch({ seed: `${name} docker`, layers: [MIB], docker: true });
    const images = [
      { content: gzip, repository: "team/gzip", platformSize: 20 * MIB },
      { content: zstd, repository: "team/zstd", platformSize: 3 * MIB },
      { content: docker, repository: "team/docker", platformSize: MIB },
    ];
    for (const { content, repository } of images) {
      await pushImage(content, { registry: cluster.upstream.url, repository, tags: ["v1"] });
    }
    const pullAll = async (node: ClusterNode, how: "ctr" | "cri"): Promise<void> => {
      for (const { repository } of images) await pull(node, `${cluster.registry}/${repository}:v1`, how);
    };

    await pullAll(first, "ctr");
    const once = await cluster.upstreamBytes();
    t.ok(once > 24 * MIB, `the first node fetched from upstream: ${once} bytes`);
    await heldBy(first, t, gzip);

    await pullAll(second, "cri");
    const again = (await cluster.upstreamBytes()) - once;
    t.ok(
      again < MIB / 2,
      `the second fetched from the first: ${again} bytes left upstream, headers and tags included`,
    );
    t.ok((await received(second, "peer")) > 24 * MIB);

    await cluster.upstream.kill();
    await pullAll(third, "cri");
    t.ok((await received(third, "peer")) > 24 * MIB, "the third pulled by tag with upstream gone");
    t.equal(await received(third, "upstream"), 0);
    for (const { content, repository } of images) {
      await pull(third, `${cluster.registry}/${repository}@${content.descriptor.digest}`, "cri");
    }
  });
}

async function pull(node: ClusterNode, reference: string, how: "ctr" | "cri"): Promise<void> {
  // 1.6 and 1.7 take what is for this machine; ctr of 2.x would also want the manifests of all other platforms.
  await (how === "ctr" ? node.containerd.pull(reference) : node.cri.pull(reference));
}

async function received(node: ClusterNode, source: "peer" | "upstream"): Promise<number> {
  return (await node.mirror.metrics()).sum("p2p_mirror_received_bytes_total", { source });
}

/** The mirror has said that its node holds the image: the others find it. */
async function heldBy(node: ClusterNode, t: Test, content: Content): Promise<void> {
  await until("the image is advertised", async () => {
    const metrics = await node.mirror.metrics();
    return metrics.sum("p2p_mirror_dht_records_advertised") >= content.blobs.length;
  });
  t.pass("advertised");
}
