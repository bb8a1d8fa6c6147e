import { crowdBound, type Links } from "../crowd/bound.ts";
import type { Blobs } from "./blobs.ts";
import { Connections } from "./connections.ts";
import { World } from "./world.ts";

/** containerd's default (`max_concurrent_downloads`). */
const AT_ONCE = 3;
/** An undisturbed crowd that takes so many times the bound takes for ever. */
const GIVE_UP = 20;
/** How often it is looked at who got how much. */
const LOOK_MS = 100;

export interface ImagePull {
  readonly nodes: number;
  /** Of the layers in bytes, in the order of the manifest. */
  readonly layers: readonly number[];
  readonly links: Links;
  readonly latencyMs: number;
  readonly seed: number;
  /** The last node has it all; default false. */
  readonly seeded?: boolean | undefined;
  /** See WorldOptions; default false. */
  readonly crowded?: boolean;
  /** See WorldOptions; default: as for few nodes. */
  readonly encoded?: boolean;
  readonly quantumMs?: number;
}

export interface LayerTimes {
  /** Seconds since the image was asked for; Infinity when it never came. */
  readonly began: number;
  readonly ended: number;
  /** The longest time in which none of its bytes came, in seconds. */
  readonly longestSilence: number;
}

export interface ImageFigures {
  /** By node, then by layer; only of nodes that pull. */
  readonly layers: readonly (readonly LayerTimes[])[];
  /** Seconds, of the last node and at least. */
  readonly last: number;
  readonly bound: number;
  /** Bytes that left upstream / size of the image. */
  readonly copies: number;
  /** Sent by each node for each layer, on average. */
  readonly messages: number;
  /** Nodes that did not get every byte right. */
  readonly incomplete: number;
}

/**
 * All nodes pull the same image of several layers as containerd does: three layers at once, the next when one is there.
 * Each layer is a world of its own, and all of them share clock and links.
 */
export async function pullLayers(
  {
    nodes,
    layers,
    links,
    latencyMs,
    seed,
    seeded = false,
    crowded = false,
    encoded = true,
    quantumMs = 0,
  }: ImagePull,
  blobs: Blobs,
): Promise<ImageFigures> {
  const worlds: World[] = [];
  const connections = new Connections();
  for (const [nth, size] of layers.entries()) {
    const [beside] = worlds;
    const options = {
      seed: seed * 100 + nth,
      nodes,
      size,
      links,
      latencyMs,
      crowded,
      encoded,
      quantumMs,
      connections,
    };
    worlds.push(await new World({ ...options, ...(beside !== undefined && { beside }) }, blobs).start());
  }
  const [{ clock }] = worlds as [World];
  const began = clock.now();
  const holders = seeded ? 1 : 0;
  const pullers = nodes - holders;
  if (seeded) for (const world of worlds) world.nodes.at(-1)?.holds();
  const pulling = worlds.map((world) => world.nodes.slice(0, pullers));
  const bound = crowdBound(sum(layers), pullers, links, holders);
  const seconds = (at: number | undefined): number => ((at ?? Infinity) - began) / 1_000;
  const starts = Array.from({ length: pullers }, () => layers.map(() => Infinity));
  const silences = Array.from({ length: pullers }, () => layers.map(() => new Silence()));
  let over = false;

  /** Of one node, as one of containerd's workers. */
  const work = async (nth: number, next: () => number | undefined): Promise<void> => {
    for (let layer = next(); layer !== undefined; layer = next()) {
      const world = worlds[layer];
      if (world === undefined || world.closed) return;
      const started = starts[nth];
      if (started !== undefined) started[layer] = seconds(clock.now());
      await world.nodes[nth]?.pull(() => 1_000);
    }
  };
  const look = (): void => {
    for (const [nth, ofNode] of silences.entries())
      for (const [layer, silence] of ofNode.entries()) {
        const node = worlds[layer]?.nodes[nth];
        if (node?.wanted === true && node.readAt === undefined) silence.look(node.received, clock.now());
      }
    if (!over) clock.after(LOOK_MS, look);
  };
  look();
  for (let nth = 0; nth < pullers; nth += 1) {
    let handedOut = 0;
    const next = (): number | undefined => (handedOut < layers.length ? handedOut++ : undefined);
    for (let worker = 0; worker < AT_ONCE; worker += 1) void work(nth, next);
  }
  const allRead = (): boolean =>
    pulling.every((ofWorld) => ofWorld.every(({ readAt }) => readAt !== undefined));
  await clock.run(GIVE_UP * bound * 1_000, allRead);
  over = true;
  const times = starts.map((started, nth) =>
    started.map((at, layer) => ({
      began: at,
      ended: seconds(worlds[layer]?.nodes[nth]?.readAt),
      longestSilence: (silences[nth]?.[layer]?.longestMs ?? Infinity) / 1_000,
    })),
  );
  const copies = sum(worlds.map(({ upstream }) => upstream.sent)) / sum(layers);
  const messages = sum(worlds.map(({ network }) => network.sent())) / nodes / layers.length;
  const wrong = pulling.flatMap((ofWorld) =>
    ofWorld.flatMap(({ readAt, wrongBytes }, nth) => (readAt === undefined || wrongBytes ? [nth] : [])),
  );
  for (const world of worlds) await world.close();
  return {
    layers: times,
    last: Math.max(...times.flat().map(({ ended }) => ended)),
    bound,
    copies,
    messages,
    incomplete: new Set(wrong).size,
  };
}

class Silence {
  longestMs = 0;
  #bytes = -1;
  #since = 0;

  look(bytes: number, now: number): void {
    if (bytes !== this.#bytes) this.#since = now;
    this.#bytes = bytes;
    this.longestMs = Math.max(this.longestMs, now - this.#since);
  }
}

const sum = (numbers: readonly number[]): number => numbers.reduce((all, one) => all + one, 0);
