/** Crowds on a virtual clock: exactly the code of flights and of the swarm, with modelled links, nodes and upstreams. */
import { parseArgs } from "node:util";
import { ConfigError } from "@p2p-mirror/shared";
import { atMost, rounded, type BenchResult } from "./lib/bench.ts";
import { Blobs } from "./lib/simulation/blobs.ts";
import { crowdTargets, undisturbed, usualSize, type CrowdFigures } from "./lib/simulation/crowds.ts";
import { SHAPES, type Rates, type ShapeName } from "./lib/simulation/shapes.ts";
import { FAULTS, type FaultKind } from "./lib/simulation/faults.ts";
import { runSeeds, type SeedsResult } from "./lib/simulation/seeds.ts";

export const name = "simulate";
export const description = "Crowds of up to 1,000 nodes, and crowds with faults, on a virtual clock (--help)";

const MIB = 1024 * 1024;
/** Crowds of each shape; of thin uplinks, one node alone is what the others are compared with. */
const NODES: Readonly<Record<ShapeName, readonly number[]>> = {
  central: [4, 8, 16, 100],
  image: [4, 8, 16],
  small: [8],
  thin: [1, 4, 8],
  seeded: [8],
  "seeded-image": [4, 8, 16],
  slow: [8],
  staggered: [8],
};
const SEEDS = 200;

const HELP = `npm run bench -- simulate [options]

  --nodes <N>       undisturbed crowds of so many nodes; several with commas, 0 for none
  --size <MiB>      of their blob (64, with more than 200 nodes 32); images have their own
  --shape <list>    only these shapes, with commas: ${SHAPES.join(", ")}
  --upstream-rate <Mbit>, --node-rate <Mbit>, --wan-per-node <Mbit>
                    of their links, as of flash-crowd (100 and 200; thin: 1000, 200 and 20)
  --seeds <K>       so many crowds with faults at random times (${SEEDS})
  --seed <S>        the first of these seeds, and that of the undisturbed crowds (1)
  --faults <list>   only these, with commas: ${FAULTS.join(", ")}

A seed that fails prints the command that runs it again, alone.`;

interface SimulateOptions {
  /** Default: those of `NODES`. */
  readonly nodes: readonly number[] | undefined;
  readonly shapes: readonly ShapeName[];
  readonly size: number | undefined;
  readonly rates: Rates;
  readonly seeds: number;
  readonly seed: number;
  readonly faults: readonly FaultKind[];
}

function number(field: string, value: string, least = 0): number {
  const parsed = Number(value);
  if (!Number.isInteger(parsed) || parsed < least)
    throw new ConfigError(`--${field}`, value, `use a whole number, ${least} or more`);
  return parsed;
}

function parse(args: readonly string[]): SimulateOptions | undefined {
  const text = { type: "string" } as const;
  const { values } = parseArgs({
    args: [...args],
    options: {
      nodes: text,
      size: text,
      shape: text,
      seeds: text,
      seed: text,
      faults: text,
      "upstream-rate": text,
      "node-rate": text,
      "wan-per-node": text,
      help: { type: "boolean" },
    },
  });
  if (values.help === true) return undefined;
  const rate = (field: "upstream-rate" | "node-rate" | "wan-per-node"): number | undefined =>
    values[field] === undefined ? undefined : number(field, values[field], 1);
  return {
    nodes: values.nodes
      ?.split(",")
      .map((one) => number("nodes", one))
      .filter((one) => one > 0),
    shapes: values.shape?.split(",").map(shapeOf) ?? SHAPES,
    size: values.size === undefined ? undefined : number("size", values.size) * MIB,
    rates: { upstream: rate("upstream-rate"), node: rate("node-rate"), wan: rate("wan-per-node") },
    seeds: values.seeds === undefined ? SEEDS : number("seeds", values.seeds),
    seed: values.seed === undefined ? 1 : number("seed", values.seed),
    faults: values.faults?.split(",").map(kindOf) ?? FAULTS,
  };
}

function shapeOf(text: string): ShapeName {
  const shape = SHAPES.find((one) => one === text.trim());
  if (shape === undefined) throw new ConfigError("--shape", text, `use any of ${SHAPES.join(", ")}`);
  return shape;
}

function kindOf(text: string): FaultKind {
  const kind = FAULTS.find((one) => one === text.trim());
  if (kind === undefined) throw new ConfigError("--faults", text, `use any of ${FAULTS.join(", ")}`);
  return kind;
}

const say = (text: string): void => console.error(text);

export async function run(args: readonly string[]): Promise<BenchResult> {
  const options = parse(args);
  if (options === undefined) {
    console.log(HELP);
    return { rows: [], targets: [] };
  }
  const { nodes, shapes, size, rates, seed, seeds } = options;
  const blobs = new Blobs();
  const crowds: CrowdFigures[] = [];
  for (const shape of shapes) {
    for (const count of nodes ?? NODES[shape]) {
      const about = { nodes: count, size: size ?? usualSize(count), rates, seed, shape };
      const figures = await undisturbed(about, blobs);
      crowds.push(figures);
      say(
        Object.entries(rowOf(figures))
          .map(([what, value]) => `${what} ${value}`)
          .join(", "),
      );
    }
  }
  const faulty: SeedsResult | undefined =
    seeds === 0
      ? undefined
      : await runSeeds({ first: seed, count: seeds, faults: options.faults, say }, blobs);
  const rows = crowds.map(rowOf);
  const result = {
    rows,
    targets: [
      ...crowdTargets(crowds),
      ...(faulty === undefined
        ? []
        : [atMost(`of ${seeds} seeds with faults, those that failed`, faulty.failed.length, 0)]),
    ],
  };
  return faulty === undefined ? result : Object.assign(result, { faulty: faulty.summary });
}

const rowOf = ({ shape, nodes, seconds, bound, copies, messages, incomplete }: CrowdFigures) => ({
  shape,
  nodes,
  seconds: rounded(seconds),
  bound: rounded(bound),
  "last/bound": rounded(seconds / bound),
  copies: rounded(copies),
  "messages/node": Math.round(messages),
  incomplete,
});
