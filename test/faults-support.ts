/** What the tests of faults share: images that nobody has yet, pulls to be caught in the middle, and what was measured. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import path from "node:path";
import { pipeline } from "node:stream/promises";
import type { Test } from "tap";
import { peersOf, type Cluster, type ClusterNode } from "./rig/cluster.ts";
import { writeHosts } from "./rig/hosts.ts";
import { blobsOf, makeImage, manifestsOf, pushImage, type Content } from "./rig/images.ts";
import type { Mirror } from "./rig/mirror.ts";
import { until } from "./rig/until.ts";

export const MIB = 1024 * 1024;

export interface Pushed {
  readonly content: Content;
  readonly repository: string;
  readonly tag: string;
  /** As containerd is given it. */
  readonly reference: string;
}

let images = 0;

/** An image at upstream that no node has seen: one large layer and a small one. */
export async function freshImage(cluster: Cluster, layer: number): Promise<Pushed> {
  const repository = `faults/${++images}`;
  const content = makeImage({ seed: `${process.pid} ${repository}`, layers: [layer, 1000] });
  await pushImage(content, { registry: cluster.upstream.url, repository, tags: ["v1"] });
  return { content, repository, tag: "v1", reference: `${cluster.registry}/${repository}:v1` };
}

/** Bytes of blobs and manifests that a mirror fetched so far. */
export async function received(mirror: Mirror, source?: "peer" | "upstream"): Promise<number> {
  const scrape = await mirror.metrics();
  return scrape.sum("p2p_mirror_received_bytes_total", source === undefined ? {} : { source });
}

/** Pulls, and resolves when everything the node now holds is found by the others. */
export async function hold(nodes: readonly ClusterNode[], { content, reference }: Pushed): Promise<void> {
  const objects = blobsOf(content).length + manifestsOf(content).length;
  for (const { cri, mirror } of nodes) {
    const before = await advertised(mirror);
    await cri.pull(reference);
    await advertises(mirror, before + objects);
  }
}

const advertised = async (mirror: Mirror): Promise<number> =>
  (await mirror.metrics()).sum("p2p_mirror_dht_records_advertised");

/** Resolves when the mirror has told the cluster of so many things. */
export async function advertises(mirror: Mirror, records: number): Promise<void> {
  await until(`${mirror.name} advertises`, async () => (await advertised(mirror)) >= records, {
    timeoutMs: 20_000,
    detail: () => mirror.log().slice(-3000),
  });
}

/** Runs while the node's mirror is not asked: containerd alone has what is pulled meanwhile. */
export async function pastTheMirror(
  cluster: Cluster,
  node: ClusterNode,
  work: () => Promise<void>,
): Promise<void> {
  const server = cluster.upstream.url;
  await writeHosts(node.containerd.certsDir, cluster.registry, { server, mirrors: [] });
  try {
    await work();
  } finally {
    await writeHosts(node.containerd.certsDir, cluster.registry, { server, mirrors: [node.mirror.url] });
  }
}

/** Makes subtests of one fault each; `restore` makes whole again whatever it broke, for the next. */
export const faultsIn =
  (t: Test, restore: () => Promise<void>) =>
  (title: string, run: (t: Test) => Promise<void>): Promise<unknown> =>
    t.test(title, async (t) => {
      try {
        await run(t);
      } finally {
        await restore();
      }
    });

/** A mirror leaves a peer alone for 5 s after it failed: what comes then would go to upstream. */
async function leavesNobodyAlone({ adminUrl }: Mirror): Promise<boolean> {
  const status = (await (await fetch(`${adminUrl}/status`)).json()) as { peers: { state: string }[] };
  return status.peers.every(({ state }) => state === "up");
}

/** Starts every mirror that does not run; resolves when all of them know each other again, and ask each other. */
export async function mirrorsAreBack({ nodes }: Cluster): Promise<void> {
  for (const { mirror } of nodes) await mirror.start();
  await until(
    "the mirrors know each other again",
    async () => {
      const peers = await Promise.all(nodes.map(({ mirror }) => peersOf(mirror)));
      if (!peers.every((count) => count === nodes.length - 1)) return false;
      return (await Promise.all(nodes.map(({ mirror }) => leavesNobodyAlone(mirror)))).every(Boolean);
    },
    { timeoutMs: 30_000 },
  );
}

export interface UnderWay<T> {
  /** Never rejects by itself: a pull that fails early must not end the process before somebody awaits it. */
  readonly result: Promise<T>;
  /** How it ended, if it has. */
  readonly ended: "ok" | "failed" | undefined;
}

export function start<T>(work: Promise<T>): UnderWay<T> {
  let ended: "ok" | "failed" | undefined;
  work.then(
    () => (ended = "ok"),
    () => (ended = "failed"),
  );
  return {
    result: work,
    get ended() {
      return ended;
    },
  };
}

/**
 * Resolves when the mirror has received `bytes` more than `before` from a source, while the pull is still under way: the
 * fault that follows hits its middle.
 */
export async function midway(
  mirror: Mirror,
  pull: UnderWay<unknown>,
  more: { readonly source: "peer" | "upstream"; readonly before: number; readonly bytes: number },
): Promise<void> {
  await until(
    `${mirror.name} has ${more.bytes} bytes from ${more.source}`,
    async () => {
      if (pull.ended !== undefined) await pull.result;
      return (await received(mirror, more.source)) >= more.before + more.bytes;
    },
    { timeoutMs: 30_000, everyMs: 10, detail: () => mirror.log().slice(-3000) },
  );
  if (pull.ended !== undefined) throw new Error(`the pull was ${pull.ended} before the fault`);
}

/** Every byte of the image is in containerd's content store, and right. */
export async function holdsAll(t: Test, node: ClusterNode, { content }: Pushed): Promise<void> {
  for (const { descriptor } of [...blobsOf(content), ...manifestsOf(content)]) {
    const hex = descriptor.digest.slice("sha256:".length);
    const hash = createHash("sha256");
    await pipeline(
      createReadStream(path.join(node.containerd.contentDir, "blobs/sha256", hex)),
      async (body: AsyncIterable<Buffer>) => {
        for await (const chunk of body) hash.update(chunk);
      },
    );
    t.equal(hash.digest("hex"), hex, `${descriptor.mediaType} in containerd`);
  }
}

export const seconds = (since: number): string => `${((performance.now() - since) / 1000).toFixed(2)} s`;
