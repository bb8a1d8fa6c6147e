import { crowdBound, payloadRate, type Links } from "../crowd/bound.ts";
import type { World } from "./world.ts";

/** As the flash crowd on real links: one uplink for all, nodes twice as fast. */
const UPSTREAM_MBIT = 100;
const NODE_MBIT = 200;
const THIN_MBIT = 20;
const SLOW_SHARE = 1 / 20;

/**
 * The shapes of `flash-crowd`, on modelled links: one uplink; a thin path to upstream for each node, ten times thinner than
 * between them; one node that has the blob; one at 1/20 of the rate; arrivals all through the first pull; and the image of that
 * bench, around a holder as well, and a small one, in layers. The others are of one blob.
 */
export const SHAPES = [
  "central",
  "image",
  "small",
  "thin",
  "seeded",
  "seeded-image",
  "slow",
  "staggered",
] as const;
export type ShapeName = (typeof SHAPES)[number];

const MIB = 1024 * 1024;
const IMAGE = Array.from({ length: 4 }, () => 64 * MIB);
/** Of the shapes that are an image: its layers, in bytes. */
export const LAYERS: Readonly<Partial<Record<ShapeName, readonly number[]>>> = {
  image: IMAGE,
  "seeded-image": IMAGE,
  small: Array.from({ length: 6 }, () => Math.floor((16 * MIB) / 6)),
};

/** In Mbit/s; those that are not given are the shape's. */
export interface Rates {
  /** Out of upstream. */
  readonly upstream?: number | undefined;
  /** Of each node, either way. */
  readonly node?: number | undefined;
  /** From upstream to one node, of thin uplinks. */
  readonly wan?: number | undefined;
}

export function linksOf(
  shape: ShapeName,
  { upstream, node = NODE_MBIT, wan = THIN_MBIT }: Rates = {},
): Links {
  const rate = payloadRate(node);
  const both = { egress: rate, ingress: rate };
  return shape === "thin"
    ? { ...both, upstream: payloadRate(upstream ?? 10 * UPSTREAM_MBIT), wan: payloadRate(wan) }
    : { ...both, upstream: payloadRate(upstream ?? UPSTREAM_MBIT) };
}

/** Seconds. Of a crowd with a slow node: what the others could do without it. */
export function boundOf(shape: ShapeName, nodes: number, size: number, links: Links): number {
  if (shape === "seeded") return crowdBound(size, nodes - 1, links, 1);
  return crowdBound(size, shape === "slow" ? nodes - 1 : nodes, links);
}

/** Makes the last node what the shape wants it to be. Returns the nodes whose times count. */
export function prepare(shape: ShapeName, { nodes }: World): World["nodes"] {
  const last = nodes.at(-1);
  if (last === undefined || (shape !== "seeded" && shape !== "slow")) return nodes;
  if (shape === "seeded") last.holds();
  else {
    last.up.rate *= SLOW_SHARE;
    last.down.rate *= SLOW_SHARE;
  }
  return nodes.slice(0, -1);
}

/** Milliseconds after the beginning at which each node comes. */
export function arrivals(shape: ShapeName, nodes: number, bound: number): number[] {
  const apart = shape === "staggered" && nodes > 1 ? (bound * 1_000) / (nodes - 1) : 0;
  return Array.from({ length: nodes }, (_, nth) => nth * apart);
}

/** Seconds that each node would take if all asked upstream and nobody else: they share its link fairly. */
export function directSeconds(size: number, arrivalsMs: readonly number[], links: Links): number[] {
  const path = Math.min(links.ingress, links.wan ?? links.ingress);
  const nodes = arrivalsMs.map((ms) => ({ at: ms / 1_000, left: size, end: Infinity }));
  for (let now = 0; nodes.some(({ end }) => end === Infinity);) {
    const active = nodes.filter(({ at, end }) => at <= now && end === Infinity);
    const rate = Math.min(path, links.upstream / Math.max(1, active.length));
    const next = Math.min(
      ...nodes.filter(({ at }) => at > now).map(({ at }) => at),
      ...active.map(({ left }) => now + left / rate),
    );
    for (const node of active) {
      node.left -= rate * (next - now);
      if (node.left <= 1) node.end = next;
    }
    now = next;
  }
  return nodes.map(({ at, end }) => end - at);
}
