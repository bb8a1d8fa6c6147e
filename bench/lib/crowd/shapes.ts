import type { CrowdOptions } from "./options.ts";

/** What is measured, in this order: containerd straight at upstream, one docker-registry between, the mirror. */
export const SYSTEMS = ["direct", "cache", "mirror"] as const;
export type SystemName = (typeof SYSTEMS)[number];

export interface Shape {
  readonly what: string;
  readonly options: Partial<CrowdOptions>;
}

/** Sizes are such that the slowest of the three systems takes minutes, not an hour. */
export const SHAPES = {
  central: { what: "one uplink for all, nodes twice as fast", options: {} },
  thin: {
    what: "each node's path to upstream is thin, between nodes it is ten times as wide",
    options: { upstreamRate: 1000, wanPerNode: 20, size: 64 },
  },
  slow: { what: "one node has 1/20 of the rate", options: { slowNode: true, size: 128 } },
  seeded: { what: "one node holds the image before the others start", options: { seeded: true } },
  staggered: { what: "nodes arrive all through the first pull", options: { stagger: "pull" } },
  small: { what: "a small image of several layers", options: { size: 16, layers: 6 } },
  fast: {
    what: "links so fast that cores are the limit on most machines",
    options: { upstreamRate: 1000, nodeRate: 1000, nodes: 4 },
  },
} as const satisfies Readonly<Record<string, Shape>>;

export type ShapeName = keyof typeof SHAPES;
