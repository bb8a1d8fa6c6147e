import { IntegrityError } from "@p2p-mirror/shared";
import { seeded } from "../../../packages/p2p-mirror/test/swarm/rig.ts";
import { rounded } from "../bench.ts";
import { crowdBound } from "../crowd/bound.ts";
import type { Blobs } from "./blobs.ts";
import { copiesAllowed, copiesUsed } from "./budget.ts";
import type { Changes } from "./changes.ts";
import { FAULTS, planFaults, planLoss, schedule, type Fault, type FaultKind } from "./faults.ts";
import { Failures } from "./failures.ts";
import { LeaseWatch } from "./lease-watch.ts";
import { tooMuchInMemory } from "./memory.ts";
import type { SimNode } from "./sim-node.ts";
import { World } from "./world.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
/** After the last fault is over, readers have the time that flights, kubelet and slow links may take, and no more. */
const AFTER_FAULTS_MS = 100_000;

export interface DisturbedOptions {
  readonly seed: number;
  readonly faults?: readonly FaultKind[];
  readonly changes?: Changes;
}

export interface Disturbed {
  readonly seed: number;
  readonly nodes: number;
  readonly size: number;
  readonly faults: readonly FaultKind[];
  /** What must not be, or undefined. */
  readonly problem: string | undefined;
  /** Virtual seconds until the last reader had everything. */
  readonly seconds: number;
  readonly bound: number;
  /** Bytes out of upstream / size. */
  readonly copies: number;
  readonly failedPulls: number;
  /** In the end nobody was left who had the blob or could get it. */
  readonly sourceless: boolean;
}

/** As kubelet: after a failure a little later, then later. */
const retry = (tries: number): number => Math.min(10_000, 1_000 * 2 ** tries);

/** A crowd and its faults, all from the seed; what must hold whatever happens is looked at. */
export async function disturbed(options: DisturbedOptions, blobs: Blobs): Promise<Disturbed> {
  const random = seeded(options.seed);
  const below = (limit: number): number => Math.floor(random() * limit);
  const nodes = 3 + below(6);
  const size = (1 + below(5)) * MIB + (below(3) === 0 ? below(MIB) : 0);
  const upstream = size / (2 + below(6));
  const rate = upstream * (2 + below(6));
  const links = {
    upstream,
    egress: rate,
    ingress: rate,
    ...(below(4) === 0 && { wan: upstream / (1 + below(4)) }),
  };
  const zones = 1 + below(3);
  const world = await new World(
    {
      seed: options.seed,
      nodes,
      size,
      links,
      latencyMs: 0.2 + below(20),
      zones,
      encoded: true,
      ...(options.changes !== undefined && { changes: options.changes }),
    },
    blobs,
  ).start();
  const bound = crowdBound(size, nodes, links);
  const kinds = options.faults ?? FAULTS;
  const faults = planFaults(world, kinds, 2 + below(3), 1_200 * bound, random);
  const spread = [0, 0, 1_000, 1_000 * bound][below(4)] ?? 0;
  for (const node of world.nodes)
    world.clock.after(below(spread + 1), () => {
      node.wanted = true;
      if (node.alive) void node.pull(retry);
    });
  // Drawn last, so that all else of a seed is as it was without.
  faults.push(...planLoss(kinds, 3_000 * bound, random));
  for (const fault of faults)
    schedule(world, fault, (node) => {
      if (node.alive && node.wanted) void node.pull(retry);
    });
  const began = world.clock.now();
  const watch = new LeaseWatch(world);
  const over = Math.max(spread, ...faults.map(({ at, until }) => (until === Infinity ? at : until)));
  const limit = over + 5_000 * bound + AFTER_FAULTS_MS;
  const isOver = (): boolean => world.clock.now() - began > spread && readers(world).every(isDone);
  await world.clock.run(limit, isOver);
  const last = Math.max(...world.nodes.map(({ readAt }) => readAt ?? began));
  const result = {
    seed: options.seed,
    nodes,
    size,
    faults: faults.map(({ kind }) => kind),
    seconds: (last - began) / 1_000,
    bound,
    copies: world.upstream.sent / size,
    sourceless: !isSourceLeft(world),
    failedPulls: world.nodes.flatMap(({ pulls }) => pulls).filter(({ error }) => error !== undefined).length,
  };
  const problem = watch.problem ?? problemOf(world, faults, began);
  await world.close();
  return { ...result, problem: problem ?? (world.clock.pending > 0 ? "timers are left" : undefined) };
}

const isDone = ({ readAt }: SimNode): boolean => readAt !== undefined;

/** Who must get every byte: lives, and has no upstream that lies to it. */
const readers = (world: World): SimNode[] =>
  world.nodes.filter((node) => node.wanted && node.alive && node.liesAbout === undefined);

function problemOf(world: World, faults: readonly Fault[], began: number): string | undefined {
  const wrong = world.nodes.find(({ wrongBytes }) => wrongBytes);
  if (wrong !== undefined) return `${wrong.id} read wrong bytes`;
  const failures = new Failures(
    world,
    faults.map((fault) => ({ ...fault, at: began + fault.at, until: began + fault.until })),
  );
  const hangs = world.nodes.map((node) => failures.hangs(node)).find((problem) => problem !== undefined);
  if (hangs !== undefined) return hangs;
  const hungry = readers(world).filter((node) => !isDone(node));
  if (hungry.length > 0 && isSourceLeft(world)) return `${names(hungry)} did not finish`;
  for (const node of readers(world)) {
    const wrongs = node.pulls.filter(({ error }) => error instanceof IntegrityError).length;
    const liars = faults.filter(({ kind }) => kind === "lies").length;
    // Who is banned is known until the next start.
    const lives = faults.some(({ kind, victim }) => kind === "restart" && victim === node) ? 2 : 1;
    if (wrongs > lives * liars) return `${node.id} failed ${wrongs} times by wrong bytes`;
    for (const pull of node.pulls) {
      const problem = failures.problemOf(node, pull);
      if (problem !== undefined) return problem;
    }
  }
  const tooMuch = tooMuchInMemory(world);
  if (tooMuch !== undefined) return tooMuch;
  const [used, allowed] = [copiesUsed(world), copiesAllowed(world, faults)];
  if (used > allowed) return `${rounded(used)} copies left upstream, of at most ${allowed}`;
  return undefined;
}

/** Somebody lives who has the blob, or whom upstream gives it. */
function isSourceLeft({ nodes, upstream }: World): boolean {
  const { lost, denied } = upstream.faults;
  const isLetIn = ({ id, liesAbout }: SimNode): boolean =>
    !lost && liesAbout === undefined && !denied.has(id);
  return nodes.some((node) => node.alive && (node.stored || isLetIn(node)));
}

const names = (nodes: readonly SimNode[]): string => nodes.map(({ id }) => id).join(", ");
