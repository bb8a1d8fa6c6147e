import { setTimeout as delay } from "node:timers/promises";
import { MultiBar, type SingleBar } from "cli-progress";
import { isMirrorStatus } from "../../../packages/p2p-mirror/src/status-shape.ts";
import { blobsOf, manifestsOf, type Content } from "../../../test/rig/images.ts";
import type { Mirror } from "../../../test/rig/mirror.ts";
import { pullImage } from "../../../test/rig/pull.ts";

export const MIB = 1024 * 1024;
/** How often the bars are brought up to date. */
const LOOK_MS = 200;

/** Where the demo shows itself. */
export type Stage = NodeJS.WritableStream & { readonly isTTY?: boolean };

/** What is pulled, as containerd would ask for it. */
export interface Show {
  readonly image: Content;
  readonly registry: string;
  readonly repository: string;
  readonly tag: string;
  readonly signal: AbortSignal;
}

export interface Row {
  readonly node: string;
  /** Bytes that the node's mirror fetched, by its own metrics. */
  readonly fromUpstream: number;
  readonly fromPeers: number;
  /** Layers of which it said who fetches what. */
  readonly coordinated: readonly string[];
  readonly seconds: number;
}

/** Manifests, config and layers, in bytes. */
export const sizeOf = (image: Content): number =>
  [...manifestsOf(image), ...blobsOf(image)].reduce((sum, { bytes }) => sum + bytes.length, 0);

export const mib = (bytes: number): string => `${(bytes / MIB).toFixed(1)} MiB`;

/** All nodes at the same moment; on a terminal each has a bar of its own, elsewhere a line when it is done. */
export async function pullAll(nodes: readonly Mirror[], stage: Stage, show: Show): Promise<Row[]> {
  const bars = stage.isTTY === true ? createBars(stage) : undefined;
  const size = sizeOf(show.image);
  try {
    // Everything is ready before the first one begins.
    const ready = await Promise.all(nodes.map(async (node) => ({ node, before: await receivedBy(node) })));
    return await Promise.all(
      ready.map(async ({ node, before }) => {
        const bar = bars?.create(size, 0, { node: node.name, upstream: mib(0), peers: mib(0), layers: 0 });
        const row = await pullOne(
          node,
          show,
          (received, layers) => draw(bar, node, since(before, received), layers),
          before,
        );
        if (bars === undefined) {
          const { fromUpstream, fromPeers, coordinated, seconds } = row;
          stage.write(
            `  ${node.name}: ${seconds.toFixed(2)} s, ${mib(fromUpstream)} from upstream, ${mib(fromPeers)} from peers, layers coordinated: ${coordinated.length}\n`,
          );
        }
        return row;
      }),
    );
  } finally {
    bars?.stop();
  }
}

async function pullOne(
  node: Mirror,
  { image, tag, ...show }: Show,
  look: (received: Received, coordinated: number) => void,
  before: Received,
): Promise<Row> {
  const began = performance.now();
  const over = new AbortController();
  const coordinated = new Set<string>();
  const watching = watch(
    node,
    (received, digests) => {
      for (const digest of digests) coordinated.add(digest);
      look(received, coordinated.size);
    },
    over.signal,
  );
  try {
    await pullImage(image, { ...show, url: node.url, reference: tag });
  } finally {
    over.abort();
    await watching;
  }
  const seconds = (performance.now() - began) / 1000;
  const after = await receivedBy(node);
  look(after, coordinated.size);
  const { upstream, peers } = since(before, after);
  return {
    node: node.name,
    fromUpstream: upstream,
    fromPeers: peers,
    coordinated: [...coordinated],
    seconds,
  };
}

/** What the mirror has, rather than what its client was given: that waits for the digest. */
async function watch(
  node: Mirror,
  look: (received: Received, coordinates: readonly string[]) => void,
  signal: AbortSignal,
): Promise<void> {
  while (!signal.aborted) {
    await delay(LOOK_MS, undefined, { signal }).catch(() => undefined);
    if (signal.aborted) return;
    // A picture that is missing is not worth the show.
    const seen = await Promise.all([receivedBy(node), coordinates(node)]).catch(() => undefined);
    if (seen !== undefined) look(...seen);
  }
}

interface Received {
  readonly upstream: number;
  readonly peers: number;
}

async function receivedBy(node: Mirror): Promise<Received> {
  const metrics = await node.metrics();
  const by = (source: string): number => metrics.sum("p2p_mirror_received_bytes_total", { source });
  return { upstream: by("upstream"), peers: by("peer") };
}

/** Layers on their way of which the node says who fetches what. */
async function coordinates({ adminUrl }: Mirror): Promise<string[]> {
  const status: unknown = await (await fetch(`${adminUrl}/status`)).json();
  if (!isMirrorStatus(status)) throw new TypeError("no status of a mirror");
  return status.flights.filter(({ swarm }) => swarm?.coordinator?.self).map(({ digest }) => digest);
}

const since = (before: Received, now: Received): Received => ({
  upstream: now.upstream - before.upstream,
  peers: now.peers - before.peers,
});

const createBars = (stage: Stage): MultiBar =>
  new MultiBar({
    format:
      "  {node} {bar} {percentage}%  {upstream} from upstream, {peers} from peers, layers coordinated: {layers}",
    stream: stage,
    hideCursor: true,
    clearOnComplete: false,
    gracefulExit: false,
    barsize: 20,
  });

function draw(bar: SingleBar | undefined, node: Mirror, { upstream, peers }: Received, layers: number): void {
  // What came twice is in the numbers, not in the bar.
  bar?.update(Math.min(bar.getTotal(), upstream + peers), {
    node: node.name,
    upstream: mib(upstream),
    peers: mib(peers),
    layers,
  });
}
