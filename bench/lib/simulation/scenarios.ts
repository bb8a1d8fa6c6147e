import { crowdBound } from "../crowd/bound.ts";
import { rounded } from "../bench.ts";
import type { Blobs } from "./blobs.ts";
import type { Changes } from "./changes.ts";
import { LeaseWatch } from "./lease-watch.ts";
import { tooMuchInMemory } from "./memory.ts";
import { World } from "./world.ts";

const MIB = 1024 * 1024;

/** A crowd in which one thing happens, so that its bounds can be close. */
export interface Scenario {
  readonly nodes: number;
  readonly seed: number;
  /** Default 8 MiB. */
  readonly size?: number;
  readonly changes?: Changes;
  /** The first node has the blob, and upstream is a quarter as fast as nodes. */
  readonly seeded?: boolean;
  /** Nodes are in so many zones, one after the other; default: in none. */
  readonly zones?: number;
  /** That the blob takes through upstream's link when nobody has it, default 4; through a node's it takes one. */
  readonly seconds?: number;
  /** See WorldOptions. */
  readonly diskRate?: number;
  readonly happens?: (world: World) => unknown;
  /** The last reader / bound, and copies out of upstream, at most. */
  readonly time: number;
  readonly copies: number;
  /** Times that each byte enters a zone, of those to which upstream did not send it; default any. */
  readonly entries?: number;
}

/** Resolves to what must not be and is, or undefined. */
export async function play(scenario: Scenario, blobs: Blobs): Promise<string | undefined> {
  const { nodes, seed, changes, zones, seeded = false, seconds = 4, size = 8 * MIB } = scenario;
  const rate = seeded ? size / 8 : size;
  const links = { upstream: seeded ? rate / 4 : size / seconds, egress: rate, ingress: rate };
  const world = await new World(
    {
      seed,
      nodes,
      size,
      links,
      latencyMs: 1,
      encoded: true,
      ...(changes !== undefined && { changes }),
      ...(zones !== undefined && { zones }),
      ...(scenario.diskRate !== undefined && { diskRate: scenario.diskRate }),
    },
    blobs,
  ).start();
  const began = world.clock.now();
  const holders = seeded ? 1 : 0;
  const bound = crowdBound(size, nodes - holders, links, holders) * 1_000;
  const watch = new LeaseWatch(world);
  const [holder] = world.nodes;
  if (seeded) holder?.holds();
  scenario.happens?.(world);
  for (const node of world.nodes) void node.pull(() => 1_000);
  const readers = (): typeof world.nodes => world.nodes.filter(({ alive, wanted }) => alive && wanted);
  await world.clock.run(20 * bound, () => readers().every(({ readAt }) => readAt !== undefined));
  const last = Math.max(...readers().map(({ readAt }) => readAt ?? Infinity)) - began;
  const copies = world.upstream.sent / size;
  const failed = readers().find(({ pulls }) => pulls.some(({ error }) => error !== undefined));
  const wrong = world.nodes.find(({ wrongBytes }) => wrongBytes);
  const entries = world.crossed / (size * ((zones ?? 1) - 1));
  const tooMuch = tooMuchInMemory(world);
  await world.close();
  if (wrong !== undefined) return `${wrong.id} read wrong bytes`;
  if (failed !== undefined) return `${failed.id} failed: ${failed.pulls[0]?.error?.message}`;
  if (watch.problem !== undefined) return watch.problem;
  if (tooMuch !== undefined) return tooMuch;
  if (last > scenario.time * bound) return `took ${rounded(last / bound)} of the bound`;
  if (copies > scenario.copies) return `${rounded(copies)} copies left upstream`;
  if (entries > (scenario.entries ?? Infinity)) return `each byte entered a zone ${rounded(entries)} times`;
  return undefined;
}
