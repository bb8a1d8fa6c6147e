/** Five nodes over shaped links that pull the same images at once, and what can be broken among them. */
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { startAll } from "../../bench/lib/crowd/start-all.ts";
import type { Pushed } from "../faults-support.ts";
import { peersOf, type ClusterNode } from "../rig/cluster.ts";
import type { Component } from "../rig/components.ts";
import { startContainerd } from "../rig/containerd.ts";
import { createCri } from "../rig/cri.ts";
import { startDockerRegistry, type DockerRegistry } from "../rig/docker-registry.ts";
import { exec } from "../rig/exec.ts";
import { writeHosts } from "../rig/hosts.ts";
import { makeImage, pushImage } from "../rig/images.ts";
import { startMirror, writeClusterSecret } from "../rig/mirror.ts";
import { createNetwork, type NetworkNode } from "../rig/netns.ts";
import { until } from "../rig/until.ts";
import { startFaultyRegistry, type FaultyRegistry } from "./faulty-registry.ts";
import { liarEnv, liarFlags } from "./lies.ts";

export const MIB = 1024 * 1024;
export const NODES = 5;
/** 48 MiB through upstream's link take 4.2 s. */
export const UPSTREAM_RATE = "100mbit";
export const NODE_RATE = "200mbit";
export const SLOW_RATE = "10mbit";
const LAYERS = [24 * MIB, 24 * MIB];
/** Of Ethernet (14), IPv4 (20) and TCP with timestamps (32). */
const HEADERS = 66;
/** How long a presigned link of the redirecting registry lives: a part of the pull. */
const LINK_LIFE_MS = 1_500;
/** Of the last node's mirror, where that is asked for; as mount has it. */
export const SMALL_DISK = "1g";

/**
 * `steady` is docker-registry; the faults of the others are on order, and of `redirecting` the links to blobs expire in
 * the middle of a pull.
 */
export type RegistryName = "steady" | "faulty" | "redirecting";

/** As image names have them. */
const hostOf = (name: RegistryName): string => `${name}.example.test`;

export interface ArenaOptions {
  readonly registry: Component;
  readonly containerd: Component;
  /** The last node's containerd fetches layers in chunks. */
  readonly chunked?: boolean;
  /** The last node's mirror has its data on a disk of its own, of 1 GiB. */
  readonly smallDisk?: boolean;
  /** Mirrors lie when they are told to (lies.ts). */
  readonly liars?: boolean;
}

export interface Arena extends AsyncDisposable {
  readonly upstream: DockerRegistry;
  readonly nodes: readonly ClusterNode[];
  readonly registries: Readonly<Record<"faulty" | "redirecting", FaultyRegistry>>;
  /** An image that nobody has. */
  push(where: RegistryName): Promise<Pushed>;
  /** Bytes that left upstream's interface, by its counters, without the headers of packets. */
  upstreamBytes(): Promise<number>;
  /** Everything runs, the links have their rates, and all mirrors know each other. */
  whole(): Promise<void>;
}

export async function openArena(options: ArenaOptions): Promise<Arena> {
  await using opening = new AsyncDisposableStack();
  const network = opening.use(await createNetwork({ nodes: NODES + 1 }));
  const [place, ...places] = network.nodes;
  if (place === undefined) throw new TypeError("the upstream has a node of its own");
  const { netns, address } = place;
  const upstream = opening.use(await startDockerRegistry({ component: options.registry, netns, address }));
  const faulty = opening.use(await startFaultyRegistry(place, { port: 5001 }));
  const redirecting = opening.use(await startFaultyRegistry(place, { port: 5003, linkLifeMs: LINK_LIFE_MS }));
  const home = await mkdtemp(path.join(os.tmpdir(), "p2pm-swarm-"));
  opening.defer(() => rm(home, { recursive: true, force: true }));
  const secret = await writeClusterSecret(path.join(home, "secret"));
  const urls: Record<RegistryName, string> = {
    steady: upstream.url,
    faulty: faulty.url,
    redirecting: redirecting.url,
  };
  const upstreams = Object.fromEntries(REGISTRIES.map((name) => [hostOf(name), urls[name]]));
  const startNode = async (node: NetworkNode, index: number): Promise<ClusterNode & AsyncDisposable> => {
    await using starting = new AsyncDisposableStack();
    const last = index === NODES - 1;
    const chunked = last && options.chunked === true;
    const component = options.containerd;
    const daemon = starting.use(await startContainerd({ component, netns: node.netns, chunked }));
    const dataDir = path.join(home, `data-${index + 1}`);
    await mkdir(dataDir);
    if (last && options.smallDisk === true) {
      await exec(["mount", "-t", "tmpfs", "-o", `size=${SMALL_DISK}`, "tmpfs", dataDir]);
      starting.defer(async () => void (await exec(["umount", dataDir])));
    }
    const mirror = starting.use(
      await startMirror({
        name: `mirror-${index + 1}`,
        node,
        dataDir,
        secretFiles: [secret],
        // Any two of them may be down when a third one starts.
        bootstrap: places.slice(0, 3).map((one) => `${one.address}:24222`),
        upstreams,
        containerdSocket: daemon.socket,
        flags: ["--cache-min-free", "0"],
        ...(options.liars === true ? { nodeFlags: liarFlags, env: liarEnv(dataDir) } : {}),
        readyMs: 60_000,
      }),
    );
    for (const [name, server] of Object.entries(upstreams)) {
      await writeHosts(daemon.certsDir, name, { server, mirrors: [mirror.url] });
    }
    const cri = starting.use(createCri(daemon.socket));
    const running = starting.move();
    const close = (): Promise<void> => running.disposeAsync();
    return { network: node, containerd: daemon, mirror, cri, [Symbol.asyncDispose]: close };
  };
  const nodes = await startAll(opening, places, startNode);

  const whole = async (): Promise<void> => {
    await upstream.start();
    await faulty.set([]);
    await redirecting.set([]);
    await place.shape({ egress: UPSTREAM_RATE });
    for (const one of places) await one.shape({ egress: NODE_RATE, ingress: NODE_RATE });
    await Promise.all(nodes.map(revive));
    const know = async (): Promise<boolean> =>
      (await Promise.all(nodes.map(({ mirror }) => peersOf(mirror)))).every((count) => count === NODES - 1);
    await until("the mirrors know each other", know, { timeoutMs: 60_000 });
    // After a partition that has healed connections are up, and silent until TCP sends again.
    const flows = async (): Promise<boolean> => {
      const lists = await Promise.all(
        nodes.map(({ network }) => network.exec(["ss", "-tinH", "state", "established"])),
      );
      return lists.every(({ stdout }) => !/ backoff:\d/.test(stdout));
    };
    await until("no connection waits to send again", flows, { timeoutMs: 60_000, everyMs: 100 });
  };
  let images = 0;
  const push = async (where: RegistryName): Promise<Pushed> => {
    const repository = `swarm/${++images}`;
    const content = makeImage({ seed: `${process.pid} ${repository}`, layers: LAYERS });
    await pushImage(content, { registry: urls[where], repository, tags: ["v1"] });
    return { content, repository, tag: "v1", reference: `${hostOf(where)}/${repository}:v1` };
  };
  await whole();
  const running = opening.move();
  return {
    upstream,
    nodes,
    registries: { faulty, redirecting },
    push,
    upstreamBytes: async () => {
      const { txBytes, txPackets } = await place.counters();
      return txBytes - HEADERS * txPackets;
    },
    whole,
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

const REGISTRIES: readonly RegistryName[] = ["steady", "faulty", "redirecting"];

async function revive({ mirror, containerd }: ClusterNode): Promise<void> {
  mirror.signal("SIGCONT");
  await mirror.start();
  const answers = await containerd.ctr(["version"]).then(
    () => true,
    () => false,
  );
  if (!answers) await containerd.restart();
}

/** The whole machine is gone at once. */
export async function killNode({ mirror, containerd }: ClusterNode): Promise<void> {
  await Promise.all([mirror.kill(), containerd.kill()]);
}
