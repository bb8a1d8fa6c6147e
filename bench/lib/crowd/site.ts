import type { Component } from "../../../test/rig/components.ts";
import { startDockerRegistry, type DockerRegistry } from "../../../test/rig/docker-registry.ts";
import { blobsOf, makeImage, manifestsOf, pushImage, type Descriptor } from "../../../test/rig/images.ts";
import { createNetwork, type LinkRates, type Network, type NetworkNode } from "../../../test/rig/netns.ts";
import { payloadRate, type Links } from "./bound.ts";
import type { CrowdOptions } from "./options.ts";

export const REGISTRY = "reg.example.test";
const MIB = 1024 * 1024;
/** Of a slow node. */
export const SLOWER = 20;

/** What was pushed, without its bytes: an image of a gibibyte need not stay in memory. */
export interface PushedImage {
  /** As containerd pulls it. */
  readonly reference: string;
  /** Manifest, config and layers. */
  readonly objects: readonly Descriptor[];
  /** Of all objects. */
  readonly bytes: number;
}

/** The place of one bench: namespaces, shaped links, an upstream with its images. Systems come and go on it. */
export interface Site extends AsyncDisposable {
  readonly network: Network;
  readonly upstream: DockerRegistry;
  /** Where upstream, a cache, and the nodes live. */
  readonly upstreamPlace: NetworkNode;
  readonly cachePlace: NetworkNode;
  readonly nodePlaces: readonly NetworkNode[];
  readonly image: PushedImage;
  /** Pulled before the clock runs, where the options want that. */
  readonly warmUp: PushedImage | undefined;
  /** Index of the node that is. */
  readonly slow: number | undefined;
  /** Sets all rates, by default those of the bench's options. */
  shape(rates?: LinkOptions): Promise<void>;
  /** Removes them, for what is prepared before the clock runs. */
  unshape(): Promise<void>;
}

/** What of the options says how fast links are. */
export type LinkOptions = Pick<
  CrowdOptions,
  "upstreamRate" | "nodeRate" | "cacheRate" | "wanPerNode" | "slowNode"
>;

/** Of the nodes that are not slow. */
export const linksOf = ({ upstreamRate, nodeRate, wanPerNode }: LinkOptions): Links => ({
  upstream: payloadRate(upstreamRate),
  egress: payloadRate(nodeRate),
  ingress: payloadRate(nodeRate),
  wan: wanPerNode === undefined ? undefined : payloadRate(wanPerNode),
});

export async function openSite(options: CrowdOptions, registry: Component): Promise<Site> {
  await using opening = new AsyncDisposableStack();
  const network = opening.use(await createNetwork({ nodes: options.nodes + 2 }));
  const [upstreamPlace, cachePlace, ...nodePlaces] = network.nodes;
  if (upstreamPlace === undefined || cachePlace === undefined) throw new TypeError("there are two servers");
  const { netns, address } = upstreamPlace;
  const upstream = opening.use(await startDockerRegistry({ component: registry, netns, address }));

  const image = await push(upstream, "crowd", options.seed, options.size, options.layers);
  const warmUp =
    options.warmUp === 0
      ? undefined
      : await push(upstream, "warm-up", `${options.seed} warm-up`, options.warmUp, options.layers);

  const slow = options.slowNode ? options.nodes - 1 : undefined;
  const addresses = [cachePlace, ...nodePlaces].map((place) => place.address);
  const shape = async (wanted: LinkOptions = options): Promise<void> => {
    const rates = ratesOf(wanted, addresses, slow);
    await upstreamPlace.shape(rates.upstream);
    await cachePlace.shape(rates.cache);
    for (const [index, place] of nodePlaces.entries()) await place.shape(rates.node(index));
  };
  const unshape = async (): Promise<void> => {
    for (const place of network.nodes) await place.shape({});
  };
  await shape();
  const running = opening.move();
  return {
    network,
    upstream,
    upstreamPlace,
    cachePlace,
    nodePlaces,
    image,
    warmUp,
    slow,
    shape,
    unshape,
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}

interface Rates {
  readonly upstream: LinkRates;
  readonly cache: LinkRates;
  readonly node: (index: number) => LinkRates;
}

const mbit = (megabits: number): string => `${Math.round(megabits * 1000)}kbit`;

function ratesOf(options: LinkOptions, addresses: readonly string[], slow: number | undefined): Rates {
  const both = (megabits: number): LinkRates => ({ egress: mbit(megabits), ingress: mbit(megabits) });
  const { wanPerNode, upstreamRate, cacheRate, nodeRate } = options;
  const paths =
    wanPerNode === undefined ? [] : addresses.map((address) => ({ address, rate: mbit(wanPerNode) }));
  return {
    upstream: { egress: mbit(upstreamRate), egressTo: paths },
    cache: both(cacheRate ?? nodeRate),
    node: (index) => both(index === slow ? nodeRate / SLOWER : nodeRate),
  };
}

async function push(
  upstream: DockerRegistry,
  name: string,
  seed: string,
  mib: number,
  layers: number,
): Promise<PushedImage> {
  const repository = `bench/${name}`;
  const size = Math.floor((mib * MIB) / layers);
  const content = makeImage({ seed, layers: Array.from({ length: layers }, () => size) });
  await pushImage(content, { registry: upstream.url, repository, tags: ["v1"] });
  const objects = [...manifestsOf(content), ...blobsOf(content)].map(({ descriptor }) => descriptor);
  return {
    reference: `${REGISTRY}/${repository}:v1`,
    objects,
    bytes: objects.reduce((sum, one) => sum + one.size, 0),
  };
}
