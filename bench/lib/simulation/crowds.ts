import { crowdBound, payloadRate } from "../crowd/bound.ts";
import { atMost, type Target } from "../bench.ts";
import type { Blobs } from "./blobs.ts";
import type { Changes } from "./changes.ts";
import { World } from "./world.ts";

const MIB = 1024 * 1024;
/** As the flash crowd on real links: one uplink for all, nodes twice as fast. */
const UPSTREAM_MBIT = 100;
const NODE_MBIT = 200;
const LATENCY_MS = 0.3;
/** From here on rates are found every few milliseconds of virtual time, and messages go as they are. */
const LARGE = 64;
const QUANTUM_MS = 4;
/** An undisturbed crowd that takes so many times the bound takes for ever. */
const GIVE_UP = 20;

export interface CrowdOfOne {
  readonly nodes: number;
  /** Of the blob, in bytes. */
  readonly size: number;
  readonly seed: number;
  /** As World's; central uplink by default, or each node's path to upstream is so thin. */
  readonly wanMbit?: number;
  readonly changes?: Changes;
}

export interface CrowdFigures {
  readonly nodes: number;
  readonly seconds: number;
  readonly bound: number;
  /** Bytes that left upstream / size. */
  readonly copies: number;
  /** Sent, for the one digest, by each node on average. */
  readonly messages: number;
  /** Of the nodes' readers, so many got every byte. */
  readonly complete: number;
}

/** All nodes begin at once, nothing goes wrong. */
export async function undisturbed(
  { nodes, size, seed, wanMbit, changes }: CrowdOfOne,
  blobs: Blobs,
): Promise<CrowdFigures> {
  const rate = payloadRate(NODE_MBIT);
  const links = {
    upstream: payloadRate(wanMbit === undefined ? UPSTREAM_MBIT : 10 * UPSTREAM_MBIT),
    egress: rate,
    ingress: rate,
    ...(wanMbit !== undefined && { wan: payloadRate(wanMbit) }),
  };
  const large = nodes >= LARGE;
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
  const began = world.clock.now();
  const bound = crowdBound(size, nodes, links);
  for (const node of world.nodes) void node.pull(() => 1_000);
  const isRead = (): boolean => world.nodes.every(({ readAt }) => readAt !== undefined);
  await world.clock.run(GIVE_UP * bound * 1_000, isRead);
  const readers = world.nodes.filter(({ readAt, wrongBytes }) => readAt !== undefined && !wrongBytes);
  const last = Math.max(...world.nodes.map(({ readAt }) => readAt ?? Infinity));
  const figures = {
    nodes,
    seconds: (last - began) / 1_000,
    bound,
    copies: world.upstream.sent / size,
    messages: world.network.sent() / nodes,
    complete: readers.length,
  };
  await world.close();
  return figures;
}

/** What the project promises of crowds that nothing disturbs. */
export function crowdTargets(all: readonly CrowdFigures[]): Target[] {
  const targets = all.flatMap((one) => [
    atMost(`N = ${one.nodes}: last node / bound`, one.seconds / one.bound, 1.25),
    atMost(`N = ${one.nodes}: bytes out of upstream / size`, one.copies, 1.05),
    // In between, more of all others are neighbours.
    ...(one.nodes < 100 ? [] : [atMost(`N = ${one.nodes}: messages of a node`, one.messages, 600)]),
    atMost(`N = ${one.nodes}: readers without every byte`, one.nodes - one.complete, 0),
  ]);
  const [hundred, thousand] = [100, 1_000].map((nodes) => all.find((one) => one.nodes === nodes));
  if (hundred !== undefined && thousand !== undefined)
    targets.push(
      atMost("messages of a node, N = 1,000 / N = 100", thousand.messages / hundred.messages, 1.5),
    );
  return targets;
}

/** In MiB: as much as keeps a crowd of that many within minutes; 128 pieces up to a hundred nodes. */
export const usualSize = (nodes: number): number => (nodes > 200 ? 32 : 64) * MIB;
