/** Five nodes that pull the same image at once over shaped links, and what a fault in the middle of that costs. */
import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { startAll } from "../bench/lib/crowd/start-all.ts";
import { received, start, type Pushed } from "./faults-support.ts";
import { peersOf, type ClusterNode } from "./rig/cluster.ts";
import type { Component } from "./rig/components.ts";
import { startContainerd } from "./rig/containerd.ts";
import { createCri } from "./rig/cri.ts";
import { startDockerRegistry, type DockerRegistry } from "./rig/docker-registry.ts";
import { writeHosts } from "./rig/hosts.ts";
import { blobsOf, makeImage, manifestsOf, pushImage } from "./rig/images.ts";
import { startMirror, writeClusterSecret } from "./rig/mirror.ts";
import { createNetwork, type NetworkNode } from "./rig/netns.ts";
import type { Fault as RegistryFault } from "./rig/oci-registry.ts";
import { startProcess } from "./rig/process.ts";
import { until } from "./rig/until.ts";

export const MIB = 1024 * 1024;
export const NODES = 5;
/** 48 MiB through upstream's link take 4.2 s. */
export const UPSTREAM_RATE = "100mbit";
export const NODE_RATE = "200mbit";
export const SLOW_RATE = "10mbit";
const LAYERS = [24 * MIB, 24 * MIB];
const PULL_MS = 90_000;
/** Of Ethernet (14), IPv4 (20) and TCP with timestamps (32). */
const HEADERS = 66;

const STEADY = "reg.example.test";
/** Served by the registry whose faults are on order. */
const FAULTY = "faulty.example.test";

export interface Arena extends AsyncDisposable {
  readonly upstream: DockerRegistry;
  readonly nodes: readonly ClusterNode[];
  /** What goes wrong at the registry on order from now on; gives the statuses of requests for blobs until now. */
  faults(faults: readonly RegistryFault[]): Promise<readonly number[]>;
  /** An image that nobody has, at one of the two registries. */
  push(where: "steady" | "faulty"): Promise<Pushed>;
  /** Bytes that left upstream's interface, by its counters, without the headers of packets. */
  upstreamBytes(): Promise<number>;
  /** Everything runs, the links have their rates, and all mirrors know each other. */
  whole(): Promise<void>;
}

export async function openArena(registry: Component, containerd: Component): Promise<Arena> {
  await using opening = new AsyncDisposableStack();
  const network = opening.use(await createNetwork({ nodes: NODES + 1 }));
  const [place, ...places] = network.nodes;
  if (place === undefined) throw new TypeError("the upstream has a node of its own");
  const { netns, address } = place;
  const upstream = opening.use(await startDockerRegistry({ component: registry, netns, address }));
  const faulty = opening.use(await startFaulty(place));
  const home = await mkdtemp(path.join(os.tmpdir(), "p2pm-swarm-"));
  opening.defer(() => rm(home, { recursive: true, force: true }));
  const secret = await writeClusterSecret(path.join(home, "secret"));
  const urls = { [STEADY]: upstream.url, [FAULTY]: faulty.url };
  const startNode = async (node: NetworkNode, index: number): Promise<ClusterNode & AsyncDisposable> => {
    await using starting = new AsyncDisposableStack();
    const daemon = starting.use(await startContainerd({ component: containerd, netns: node.netns }));
    const mirror = starting.use(
      await startMirror({
        name: `mirror-${index + 1}`,
        node,
        secretFiles: [secret],
        // Any two of them may be down when a third one starts.
        bootstrap: places.slice(0, 3).map((one) => `${one.address}:24222`),
        upstreams: urls,
        containerdSocket: daemon.socket,
        flags: ["--cache-min-free", "0"],
        readyMs: 60_000,
      }),
    );
    for (const [name, server] of Object.entries(urls)) {
      await writeHosts(daemon.certsDir, name, { server, mirrors: [mirror.url] });
    }
    const cri = starting.use(createCri(daemon.socket));
    const running = starting.move();
    const close = (): Promise<void> => running.disposeAsync();
    return { network: node, containerd: daemon, mirror, cri, [Symbol.asyncDispose]: close };
  };
  const nodes = await startAll(opening, places, startNode);

  const shape = async (): Promise<void> => {
    await place.shape({ egress: UPSTREAM_RATE });
    for (const one of places) await one.shape({ egress: NODE_RATE, ingress: NODE_RATE });
  };
  const whole = async (): Promise<void> => {
    await upstream.start();
    await faulty.set([]);
    await shape();
    await Promise.all(nodes.map(revive));
    const know = async (): Promise<boolean> =>
      (await Promise.all(nodes.map(({ mirror }) => peersOf(mirror)))).every((count) => count === NODES - 1);
    await until("the mirrors know each other", know, { timeoutMs: 60_000 });
  };
  let images = 0;
  const push = async (where: "steady" | "faulty"): Promise<Pushed> => {
    const repository = `swarm/${++images}`;
    const content = makeImage({ seed: `${process.pid} ${repository}`, layers: LAYERS });
    const name = where === "steady" ? STEADY : FAULTY;
    await pushImage(content, { registry: urls[name] ?? "", repository, tags: ["v1"] });
    return { content, repository, tag: "v1", reference: `${name}/${repository}:v1` };
  };
  await whole();
  const running = opening.move();
  return {
    upstream,
    nodes,
    faults: (faults) => faulty.set(faults),
    push,
    upstreamBytes: async () => {
      const { txBytes, txPackets } = await place.counters();
      return txBytes - HEADERS * txPackets;
    },
    whole,
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

const FAULTY_PORT = 5001;

interface Faulty extends AsyncDisposable {
  readonly url: string;
  set(faults: readonly RegistryFault[]): Promise<readonly number[]>;
}

async function startFaulty({ netns, address }: NetworkNode): Promise<Faulty> {
  const script = path.join(import.meta.dirname, "rig/oci-registry-process.ts");
  const running = await startProcess({
    name: "the registry with faults",
    argv: [process.execPath, "--conditions=@p2p-mirror/source", script, address, String(FAULTY_PORT)],
    netns,
  });
  const set = async (faults: readonly RegistryFault[]): Promise<readonly number[]> => {
    const control = `http://${address}:${FAULTY_PORT + 1}`;
    const answer: unknown = await (
      await fetch(control, { method: "POST", body: JSON.stringify(faults) })
    ).json();
    return Array.isArray(answer) ? answer.map(Number) : [];
  };
  try {
    await running.until("it answers", () => set([]).then(() => true));
  } catch (error) {
    await running.stop();
    throw error;
  }
  const close = async (): Promise<void> => void (await running.stop());
  return { url: `http://${address}:${FAULTY_PORT}`, set, [Symbol.asyncDispose]: close };
}

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

/** Bytes of blobs and manifests together. */
export const sizeOf = ({ content }: Pushed): number =>
  [...blobsOf(content), ...manifestsOf(content)].reduce((sum, one) => sum + one.descriptor.size, 0);

/** What nodes do for an image while it is pulled. */
export interface Role {
  readonly node: ClusterNode;
  /** Layers whose swarm it coordinates. */
  readonly coordinates: number;
  /** Layers of which it holds a lease now. */
  readonly leases: number;
  /** Bytes it has had from upstream for this image: nobody else need have them. */
  readonly fetched: number;
}

/** A pull by all nodes at once. */
export interface Crowd {
  readonly image: Pushed;
  /** Resolves with how long the node's pull took, rejects when it failed. */
  secondsOf(node: ClusterNode): Promise<number>;
  /** Resolves when the nodes have this share of what they are to get, while all of them are still at it. */
  reaches(share: number): Promise<void>;
  roles(): Promise<readonly Role[]>;
  /** Bytes that left upstream since the beginning, in copies of the image. */
  copies(): Promise<number>;
}

export async function startCrowd(arena: Arena, image: Pushed): Promise<Crowd> {
  const { nodes } = arena;
  const before = await Promise.all(nodes.map(({ mirror }) => received(mirror)));
  const fetched = await Promise.all(nodes.map(({ mirror }) => received(mirror, "upstream")));
  // The connections stand before the clock runs.
  await Promise.all(nodes.map(({ cri }) => cri.list()));
  const sent = await arena.upstreamBytes();
  const began = performance.now();
  const pull = async ({ cri }: ClusterNode): Promise<number> => {
    await cri.pull(image.reference, { timeoutMs: PULL_MS });
    return (performance.now() - began) / 1000;
  };
  const pulls = new Map(nodes.map((node) => [node, start(pull(node))]));
  const size = sizeOf(image);
  return {
    image,
    async secondsOf(node) {
      const pull = pulls.get(node);
      if (pull === undefined) throw new TypeError("every node pulls");
      return pull.result;
    },
    async reaches(share) {
      const reached = async (): Promise<boolean> => {
        const now = await Promise.all(nodes.map(({ mirror }) => received(mirror)));
        const more = now.reduce((sum, bytes, index) => sum + bytes - (before[index] ?? 0), 0);
        return more >= share * size * nodes.length;
      };
      await until("the middle of the pull", reached, { timeoutMs: 60_000, everyMs: 25 });
      for (const { ended } of pulls.values()) {
        if (ended !== undefined) throw new Error(`a pull was ${ended} before the fault`);
      }
    },
    roles: () =>
      Promise.all(
        nodes.map(async (node, index): Promise<Role> => {
          const swarms = await swarmsOf(node);
          const now = await received(node.mirror, "upstream");
          return {
            node,
            coordinates: swarms.filter((swarm) => field(field(swarm, "coordinator"), "self") === true).length,
            leases: swarms.filter((swarm) => lengthOf(field(swarm, "leases")) > 0).length,
            fetched: now - (fetched[index] ?? 0),
          };
        }),
      ),
    copies: async () => ((await arena.upstreamBytes()) - sent) / size,
  };
}

/** What the node's status says of the swarms of its flights. */
async function swarmsOf({ mirror }: ClusterNode): Promise<unknown[]> {
  const status: unknown = await (await fetch(`${mirror.adminUrl}/status`)).json();
  const flights = field(status, "flights");
  return Array.isArray(flights) ? flights.map((flight: unknown) => field(flight, "swarm")) : [];
}

const lengthOf = (value: unknown): number => (Array.isArray(value) ? value.length : 0);

const field = (value: unknown, name: string): unknown =>
  typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
