/** A pull of one image by all nodes of the arena at once, and who does what for it. */
import { readdir } from "node:fs/promises";
import path from "node:path";
import { received, start, type Pushed, type UnderWay } from "../faults-support.ts";
import type { ClusterNode } from "../rig/cluster.ts";
import { blobsOf, manifestsOf } from "../rig/images.ts";
import { until } from "../rig/until.ts";
import type { Arena } from "./arena.ts";

const PULL_MS = 150_000;
/** As kubelet, which goes on asking: how long it takes in all, and what that costs, is judged. */
const TRIES = 6;

/** Bytes of blobs and manifests together. */
export const sizeOf = ({ content }: Pushed): number =>
  [...blobsOf(content), ...manifestsOf(content)].reduce((sum, one) => sum + one.descriptor.size, 0);

/** What a node does for an image while it is pulled. */
export interface Role {
  readonly node: ClusterNode;
  /** Layers whose swarm it coordinates. */
  readonly coordinates: number;
  /** Layers of which it holds a lease now. */
  readonly leases: number;
  /** Bytes it has had from upstream for this image: nobody else need have them. */
  readonly fetched: number;
}

export interface Crowd {
  readonly image: Pushed;
  /** Resolves with when the node had the image, in seconds from the beginning; rejects when its last pull failed. */
  secondsOf(node: ClusterNode): Promise<number>;
  /** Resolves when the nodes have this share of what they are to get, while all of them are still at it. */
  reaches(share: number): Promise<void>;
  roles(): Promise<readonly Role[]>;
  roleOf(node: ClusterNode): Promise<Role>;
  /** Bytes that left upstream since the beginning, in copies of the image. */
  copies(): Promise<number>;
  /** The node's client leaves: resolves when its pull has failed for that. */
  leave(node: ClusterNode): Promise<void>;
  /** Resolves when its pull has failed; rejects when it succeeded. */
  failed(node: ClusterNode): Promise<void>;
  /** Resolves when its pull is over: whether it failed. */
  hasFailed(node: ClusterNode): Promise<boolean>;
  /** What its client said of each pull that failed and was tried again. */
  failuresOf(node: ClusterNode): readonly string[];
  /** It asks again, after its pull has failed. */
  comeBack(node: ClusterNode): void;
}

interface Pull {
  readonly leaving: AbortController;
  readonly work: UnderWay<number>;
}

/** `again`: pulls that fail are tried again, as kubelet does. */
export async function startCrowd(arena: Arena, image: Pushed, again = false): Promise<Crowd> {
  const { nodes } = arena;
  const before = await Promise.all(nodes.map(({ mirror }) => received(mirror)));
  const fetched = await Promise.all(nodes.map(({ mirror }) => received(mirror, "upstream")));
  // The connections stand before the clock runs.
  await Promise.all(nodes.map(({ cri }) => cri.list()));
  const sent = await arena.upstreamBytes();
  const began = performance.now();
  const pulls = new Map<ClusterNode, Pull>();
  const failures = new Map<ClusterNode, readonly string[]>();
  const failuresOf = (node: ClusterNode): readonly string[] => failures.get(node) ?? [];
  const pull = (node: ClusterNode): void => {
    const leaving = new AbortController();
    const once = (): Promise<unknown> =>
      node.cri.pull(image.reference, { timeoutMs: PULL_MS, signal: leaving.signal });
    const work = async (): Promise<number> => {
      for (let tries = again ? TRIES : 1; ; tries -= 1) {
        try {
          await once();
          break;
        } catch (error) {
          if (tries === 1) throw error;
          failures.set(node, [...failuresOf(node), String(error)]);
          await forgets(node);
        }
      }
      return (performance.now() - began) / 1000;
    };
    pulls.set(node, { leaving, work: start(work()) });
  };
  const pullOf = (node: ClusterNode): Pull => {
    const found = pulls.get(node);
    if (found === undefined) throw new TypeError("every node pulls");
    return found;
  };
  const roleOf = async (node: ClusterNode): Promise<Role> => {
    const swarms = await swarmsOf(node);
    const now = await received(node.mirror, "upstream");
    return {
      node,
      coordinates: swarms.filter((swarm) => field(field(swarm, "coordinator"), "self") === true).length,
      leases: swarms.filter((swarm) => lengthOf(field(swarm, "leases")) > 0).length,
      fetched: now - (fetched[nodes.indexOf(node)] ?? 0),
    };
  };
  const hasFailed = (node: ClusterNode): Promise<boolean> =>
    pullOf(node).work.result.then(
      () => false,
      () => true,
    );
  const failed = async (node: ClusterNode): Promise<void> => {
    if (!(await hasFailed(node)))
      throw new Error(`the pull of ${node.mirror.name} was over before the fault`);
  };
  for (const node of nodes) pull(node);
  const size = sizeOf(image);
  return {
    image,
    secondsOf: async (node) => pullOf(node).work.result,
    async reaches(share) {
      const reached = async (): Promise<boolean> => {
        const now = await Promise.all(nodes.map(({ mirror }) => received(mirror)));
        const more = now.reduce((sum, bytes, index) => sum + bytes - (before[index] ?? 0), 0);
        return more >= share * size * nodes.length;
      };
      await until("the middle of the pull", reached, { timeoutMs: 60_000, everyMs: 25 });
      for (const { work } of pulls.values()) {
        if (work.ended !== undefined) throw new Error(`a pull was ${work.ended} before the fault`);
      }
    },
    roles: () => Promise.all(nodes.map(roleOf)),
    roleOf,
    copies: async () => ((await arena.upstreamBytes()) - sent) / size,
    async leave(node) {
      pullOf(node).leaving.abort();
      await failed(node);
    },
    failed,
    hasFailed,
    failuresOf,
    comeBack: pull,
  };
}

/** What a failed pull has left would be the beginning of the next one, wrong bytes included. */
async function forgets({ containerd }: ClusterNode): Promise<void> {
  const ingests = path.join(containerd.contentDir, "ingest");
  await until("containerd has removed what it got", async () => (await readdir(ingests)).length === 0);
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
