import { Command, InvalidArgumentError, Option } from "commander";
import { SHAPES, SYSTEMS, type ShapeName, type SystemName } from "./shapes.ts";

export interface CrowdOptions {
  readonly shape: ShapeName;
  readonly nodes: number;
  /** MiB of the image, in layers of one size. */
  readonly size: number;
  readonly layers: number;
  /** Mbit/s: out of upstream; of each node, either way; from upstream to one node; of the cache, either way. */
  readonly upstreamRate: number;
  readonly nodeRate: number;
  readonly wanPerNode?: number;
  readonly cacheRate?: number;
  /** The last node has 1/20 of the rate. */
  readonly slowNode: boolean;
  /** The first node holds the image before the others begin. */
  readonly seeded: boolean;
  /** Seconds over which the nodes' beginnings are spread; "pull": as long as one copy takes to leave upstream. */
  readonly stagger: number | "pull";
  readonly containerd: "2.x" | "2.1" | "1.7" | "1.6";
  readonly chunked: boolean;
  readonly via: "fetch" | "cri";
  readonly systems: readonly SystemName[];
  /** Also measure a plain fetch from one peer, to compare the CPU it costs. */
  readonly cost: boolean;
  readonly runs: number;
  readonly seed: string;
  readonly warmUp: number;
  readonly sources: boolean;
  readonly logs?: string;
  readonly mirrorFlag: readonly string[];
}

/** What every shape takes that does not say otherwise. */
const COMMON = {
  nodes: 8,
  size: 256,
  layers: 4,
  upstreamRate: 100,
  nodeRate: 200,
  slowNode: false,
  seeded: false,
  stagger: 0,
} as const;

/** One for each number of nodes. Prints usage and ends the process where it is asked to, or where an option is none. */
export function parseCrowdOptions(args: readonly string[]): CrowdOptions[] {
  const command = new Command("npm run bench -- flash-crowd")
    .description(
      "N nodes pull the same new image in the same second, on real containerds over shaped links (root)",
    )
    .addOption(
      new Option("--shape <NAME>", "what the network and the crowd are like")
        .choices(Object.keys(SHAPES))
        .default("central"),
    )
    .option("--nodes <N>", "how many; several with commas, one crowd after the other", numbers(1, 100))
    .option("--size <MIB>", "of the image", integer(1, 16_384))
    .option("--layers <N>", "of one size", integer(1, 100))
    .option("--upstream-rate <MBIT>", "out of upstream", rate)
    .option("--node-rate <MBIT>", "of each node, either way", rate)
    .option("--wan-per-node <MBIT>", "from upstream to each node", rate)
    .option("--cache-rate <MBIT>", "of the pull-through cache, either way (default: as a node)", rate)
    .option("--slow-node", "the last node has 1/20 of the rate")
    .option("--seeded", "the first node holds the image before")
    .option(
      "--stagger <SECONDS>",
      "spread the beginnings over so long, or over one copy's time: pull",
      stagger,
    )
    .addOption(
      new Option("--containerd <VERSION>", "on every node")
        .choices(["2.x", "2.1", "1.7", "1.6"])
        .default("2.x"),
    )
    .option("--chunked", "2.x fetches layers in parallel ranges (implies --via cri, which does)", false)
    .addOption(
      new Option("--via <HOW>", "ctr content fetch, which does not unpack; or a pull by CRI, which does")
        .choices(["fetch", "cri"])
        .default("fetch"),
    )
    .option("--systems <NAMES>", `some of ${SYSTEMS.join(",")}`, systems, [...SYSTEMS])
    .option("--cost", "compare the mirrors' CPU with that of a plain fetch from one peer", false)
    .option("--runs <N>", "of each; targets are set against medians", integer(1, 100), 1)
    .option("--seed <TEXT>", "of the image's bytes (default: a new one)")
    .option("--warm-up <MIB>", "of another image that all nodes pull before; 0: none", integer(0, 1024), 8)
    .option("--sources", "run the mirror's sources, not the program of its image", false)
    .option("--logs <DIR>", "keep the mirrors' logs and metrics there")
    .option("--mirror-flag <FLAG>", "one more flag for every mirror (repeatable)", collect, []);
  const shapes = Object.entries(SHAPES).map(([name, { what, options }]) => {
    return `  ${name.padEnd(10)} ${what} ${JSON.stringify(options)}`;
  });
  command.addHelpText(
    "after",
    `\nShapes, and what they set:\n${shapes.join("\n")}\nDefaults ${JSON.stringify(COMMON)}`,
  );
  command.parse(args, { from: "user" });
  const { nodes: given, ...own } = command.opts<Given>();
  const shape: Partial<CrowdOptions> = SHAPES[own.shape].options;
  const via = own.chunked ? "cri" : own.via;
  const common = { ...COMMON, seed: `crowd ${Date.now()}`, ...shape, ...own, via } as const;
  if (own.chunked && own.containerd.startsWith("1.")) command.error("error: 1.x fetches no chunks");
  const least = common.seeded || common.slowNode ? 2 : 1;
  return (given ?? [common.nodes]).map((nodes): CrowdOptions => {
    if (nodes < least) command.error(`error: that needs ${least} nodes`);
    return { ...common, nodes };
  });
}

type WithDefault =
  | "shape"
  | "containerd"
  | "chunked"
  | "via"
  | "systems"
  | "cost"
  | "runs"
  | "warmUp"
  | "sources";

/** What commander gives: the options with a default of their own are always there. */
type Given = Pick<CrowdOptions, WithDefault | "mirrorFlag"> &
  Partial<Omit<CrowdOptions, WithDefault | "mirrorFlag" | "nodes">> & { readonly nodes?: readonly number[] };

function numbers(least: number, most: number): (text: string) => number[] {
  return (text) => text.split(",").map(integer(least, most));
}

function integer(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (Number.isInteger(value) && value >= least && value <= most) return value;
    throw new InvalidArgumentError(`must be a whole number from ${least} to ${most}`);
  };
}

function rate(text: string): number {
  const value = Number(text);
  if (value >= 1 && value <= 40_000) return value;
  throw new InvalidArgumentError("must be Mbit/s, from 1 to 40,000");
}

function stagger(text: string): number | "pull" {
  if (text === "pull") return text;
  const value = Number(text);
  if (value >= 0 && value <= 3600) return value;
  throw new InvalidArgumentError("must be seconds, or: pull");
}

function systems(text: string): SystemName[] {
  const names = text.split(",");
  const known = SYSTEMS.filter((name) => names.includes(name));
  if (known.length > 0 && known.length === names.length) return known;
  throw new InvalidArgumentError(`must be some of ${SYSTEMS.join(",")}`);
}

const collect = (one: string, before: readonly string[]): string[] => [...before, one];
