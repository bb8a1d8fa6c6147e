import { atMost, type Target } from "../bench.ts";
import type { Links } from "../crowd/bound.ts";
import type { Blobs } from "./blobs.ts";
import type { Changes } from "./changes.ts";
import { pullLayers } from "./layers.ts";
import {
  arrivals,
  boundOf,
  directSeconds,
  LAYERS,
  linksOf,
  prepare,
  type Rates,
  type ShapeName,
} from "./shapes.ts";
import { World } from "./world.ts";

const MIB = 1024 * 1024;
const LATENCY_MS = 0.3;
/** From here on rates are found every few milliseconds of virtual time, and messages go as they are. */
const LARGE = 64;
const QUANTUM_MS = 4;
/** An undisturbed crowd that takes so many times the bound takes for ever. */
const GIVE_UP = 20;

export interface CrowdOfOne {
  readonly nodes: number;
  /** Of the blob, in bytes; of an image its layers count. */
  readonly size: number;
  readonly seed: number;
  /** Default: one uplink for all. */
  readonly shape?: ShapeName;
  /** Default: those of the shape. */
  readonly rates?: Rates;
  readonly changes?: Changes;
}

export interface CrowdFigures {
  readonly shape: ShapeName;
  readonly nodes: number;
  /** Of the last node whose time counts. */
  readonly seconds: number;
  readonly bound: number;
  /** Bytes that left upstream / size. */
  readonly copies: number;
  /** Sent, for the one digest, by each node on average. */
  readonly messages: number;
  /** Of the readers that count, so many did not get every byte. */
  readonly incomplete: number;
  /** The worst of all nodes: its time / what it would take if all asked upstream. */
  readonly againstDirect: number;
}

/** Nothing goes wrong. Whoever the shape makes slow is not waited for. */
export async function undisturbed(
  { nodes, size, seed, shape = "central", rates, changes }: CrowdOfOne,
  blobs: Blobs,
): Promise<CrowdFigures> {
  const links = linksOf(shape, rates);
  const large = nodes >= LARGE;
  const layers = LAYERS[shape];
  if (layers !== undefined) return image(shape, { nodes, layers, links, seed, large }, blobs);
  const world = await new World(
    {
      seed,
      nodes,
      size,
      links,
      latencyMs: LATENCY_MS,
      encoded: !large,
      quantumMs: large ? QUANTUM_MS : 0,
      ...(changes !== undefined && { changes }),
    },
    blobs,
  ).start();
  const counting = prepare(shape, world);
  const began = world.clock.now();
  const bound = boundOf(shape, nodes, size, links);
  const starts = arrivals(shape, nodes, bound);
  for (const [nth, node] of world.nodes.entries())
    world.clock.after(starts[nth] ?? 0, () => void node.pull(() => 1_000));
  const isRead = (): boolean => counting.every(({ readAt }) => readAt !== undefined);
  await world.clock.run(GIVE_UP * bound * 1_000, isRead);
  const direct = directSeconds(size, starts, links);
  const took = counting.map(({ readAt = Infinity }) => (readAt - began) / 1_000);
  const figures = {
    shape,
    nodes,
    seconds: Math.max(...took),
    bound,
    copies: world.upstream.sent / size,
    messages: world.network.sent() / nodes,
    incomplete: counting.filter(({ readAt, wrongBytes }) => readAt === undefined || wrongBytes).length,
    againstDirect: Math.max(
      ...took.map((seconds, nth) => (seconds - (starts[nth] ?? 0) / 1_000) / (direct[nth] ?? Infinity)),
    ),
  };
  await world.close();
  return figures;
}

async function image(
  shape: ShapeName,
  about: {
    readonly nodes: number;
    readonly layers: readonly number[];
    readonly links: Links;
    readonly seed: number;
    readonly large: boolean;
  },
  blobs: Blobs,
): Promise<CrowdFigures> {
  const { large, ...crowd } = about;
  const { last, bound, copies, messages, incomplete } = await pullLayers(
    {
      ...crowd,
      seeded: shape === "seeded-image",
      latencyMs: LATENCY_MS,
      encoded: !large,
      quantumMs: large ? QUANTUM_MS : 0,
    },
    blobs,
  );
  const size = about.layers.reduce((sum, layer) => sum + layer, 0);
  const [direct = Infinity] = directSeconds(size, Array<number>(about.nodes).fill(0), about.links);
  return {
    shape,
    nodes: about.nodes,
    seconds: last,
    bound,
    copies,
    messages,
    incomplete,
    againstDirect: last / direct,
  };
}

/** Where it is about bytes or messages, and about the time of the last node. */
export function crowdTargets(all: readonly CrowdFigures[]): Target[] {
  const targets = all.flatMap((one) => {
    const who = `${one.shape}, N = ${one.nodes}`;
    return [
      timeTarget(who, one, all),
      atMost(`${who}: bytes out of upstream / size`, one.copies, one.shape.startsWith("seeded") ? 0.3 : 1.05),
      // In between, more of all others are neighbours.
      ...(one.nodes < 100 ? [] : [atMost(`${who}: messages of a node`, one.messages, 600)]),
      atMost(`${who}: readers without every byte`, one.incomplete, 0),
    ];
  });
  for (const thousand of all.filter(({ nodes }) => nodes === 1_000)) {
    const hundred = all.find(({ shape, nodes }) => shape === thousand.shape && nodes === 100);
    if (hundred === undefined) continue;
    const what = `${thousand.shape}: messages of a node, N = 1,000 / N = 100`;
    targets.push(atMost(what, thousand.messages / hundred.messages, 1.5));
  }
  return targets;
}

function timeTarget(who: string, one: CrowdFigures, all: readonly CrowdFigures[]): Target {
  const { shape, nodes, seconds, bound, againstDirect } = one;
  const lone = all.find((other) => other.shape === "thin" && other.nodes === 1);
  if (shape === "thin" && lone !== undefined && nodes > 1)
    return atMost(`${who}: last node / one node alone`, seconds / lone.seconds, 1.5 / nodes);
  if (shape === "staggered") return atMost(`${who}: slowest node against itself by direct`, againstDirect, 1);
  // Starting costs so small an image more than a share of its time.
  if (shape === "small") return atMost(`${who}: seconds above the bound`, seconds - bound, 0.5);
  return atMost(`${who}: last node / bound`, seconds / bound, limitOf(one));
}

const limitOf = ({ shape, nodes }: CrowdFigures): number => {
  if (shape === "slow") return 1.2;
  return nodes <= 16 ? 1.15 : 1.25;
};

/** In MiB: as much as keeps a crowd of that many within minutes; 128 pieces up to a hundred nodes. */
export const usualSize = (nodes: number): number => (nodes > 200 ? 32 : 64) * MIB;
