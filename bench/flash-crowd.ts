/** N nodes pull the same new image in the same second: what it costs upstream and how long the last one waits. */
import { component } from "../test/rig/components.ts";
import { probeNetworks } from "../test/rig/netns.ts";
import type { BenchResult } from "./lib/bench.ts";
import { crowdBound } from "./lib/crowd/bound.ts";
import { runCrowd, type CrowdDeps } from "./lib/crowd/crowd.ts";
import { parseCrowdOptions, type CrowdOptions } from "./lib/crowd/options.ts";
import { figuresOf, MAX_LOAD, rowOf, type Figures } from "./lib/crowd/report.ts";
import type { SystemName } from "./lib/crowd/shapes.ts";
import { linksOf, openSite } from "./lib/crowd/site.ts";
import { targetsOf, type Measured } from "./lib/crowd/targets.ts";
import { residentMemory } from "./lib/programs.ts";

export const name = "flash-crowd";
export const description =
  "N real containerds on shaped links pull a new image at once: direct, through a cache, by the mirror (--help; root)";

const WHAT: Readonly<Record<keyof Measured, string>> = {
  direct: "direct",
  cache: "docker-registry cache",
  mirror: "mirror",
  lone: "mirror, one node alone",
  plain: "mirror, from one peer",
  paced: "mirror, from one peer, in the crowd's time",
};
/** One node, with no other in the cluster. */
const LONE = { nodes: 1, seeded: false, stagger: 0 } as const;
/** One node that fetches from one that holds the image. */
const PLAIN = { nodes: 2, seeded: true, stagger: 0 } as const;
/** More would drive out what others have in memory. */
const MAX_RESIDENT = 8 * 1024 ** 3;

export interface CrowdBenchResult extends BenchResult {
  /** All there is to know of every run, and what it was made with, for the line of JSON. */
  readonly options: CrowdOptions;
  readonly runs: Measured;
  readonly site: object;
}

/** As the bench, for who ends it by a signal and prints progress elsewhere. */
export async function flashCrowd(
  options: CrowdOptions,
  { signal, say }: { readonly signal: AbortSignal; readonly say: (text: string) => void },
): Promise<CrowdBenchResult> {
  await probeNetworks();
  const registry = await component("docker-registry");
  const containerd = await component(`containerd-${options.containerd}`);
  await using site = await openSite(options, registry);
  signal.throwIfAborted();
  say(
    `${options.nodes} nodes, containerd ${containerd.version}, ${options.size} MiB in ${options.layers} layers, ` +
      `seed "${options.seed}", upstream ${options.upstreamRate} Mbit/s, nodes ${options.nodeRate} Mbit/s`,
  );
  const measured: Record<keyof Measured, Figures[]> = {
    direct: [],
    cache: [],
    mirror: [],
    lone: [],
    plain: [],
    paced: [],
  };
  const rows: Record<string, string | number>[] = [];
  const deps: CrowdDeps = { site, registry, containerd, signal, say };
  const measure = async (
    run: number,
    kind: keyof Measured,
    system: SystemName,
    special: Partial<CrowdOptions>,
  ) => {
    const now = { ...options, ...special };
    // Each node writes what it pulls, and its mirror does so again.
    await residentMemory(Math.min(2 * now.nodes * site.image.bytes, MAX_RESIDENT));
    const figures = figuresOf(run, await runCrowd(system, now, deps), now, site);
    measured[kind].push(figures);
    const row = { run, what: WHAT[kind], ...rowOf(figures) };
    rows.push(row);
    say(
      Object.entries(row)
        .map(([what, value]) => `${what} ${value}`)
        .join(", "),
    );
    if (!figures.counts)
      say(`more than ${MAX_LOAD} % of the cores were busy: they were the limit, not the links`);
  };
  for (let run = 1; run <= options.runs; run += 1) {
    for (const system of options.systems) {
      if (system === "mirror" && options.wanPerNode !== undefined) await measure(run, "lone", system, LONE);
      if (system === "mirror" && options.cost) {
        await measure(run, "plain", system, PLAIN);
        await measure(run, "paced", system, { ...PLAIN, nodeRate: paceOf(options) });
      }
      await measure(run, system, system, {});
    }
  }
  return {
    rows,
    targets: targetsOf(measured, options),
    options,
    runs: measured,
    site: {
      containerd: containerd.version,
      registry: registry.version,
      congestionControl: site.upstreamPlace.congestionControl,
      imageBytes: site.image.bytes,
      payloadRates: linksOf(options),
    },
  };
}

/** Mbit/s of a node's link that takes as long for an image as the crowd must. */
function paceOf(options: CrowdOptions): number {
  const links = linksOf(options);
  const holders = options.seeded ? 1 : 0;
  return options.nodeRate / (links.ingress * crowdBound(1, options.nodes - holders, links, holders));
}

/** Crowds of several sizes, one after the other: their targets say which. */
function merged(results: readonly CrowdBenchResult[]): BenchResult & { readonly crowds: object } {
  const named = ({ options, targets }: CrowdBenchResult): BenchResult["targets"] =>
    results.length === 1
      ? targets
      : targets.map((target) => ({ ...target, what: `N = ${options.nodes}: ${target.what}` }));
  return {
    rows: results.flatMap(({ rows }) => rows),
    targets: results.flatMap(named),
    crowds: results.map(({ rows: _rows, targets: _targets, ...rest }) => rest),
  };
}

/** Options: `--help`. */
export async function run(args: readonly string[]): Promise<BenchResult> {
  const crowds = parseCrowdOptions(args);
  const stop = new AbortController();
  let by: NodeJS.Signals = "SIGINT";
  const onSignal = (signal: NodeJS.Signals): void => {
    // A second one ends it at once; what is left behind then is removed by the next run.
    if (stop.signal.aborted) process.exit(130);
    by = signal;
    console.error("\nStopping, and removing everything. Once more to stop at once.");
    stop.abort(new DOMException(signal, "AbortError"));
  };
  process.on("SIGINT", onSignal).on("SIGTERM", onSignal);
  try {
    const results: CrowdBenchResult[] = [];
    for (const options of crowds) {
      results.push(await flashCrowd(options, { signal: stop.signal, say: (text) => console.error(text) }));
    }
    return merged(results);
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    process.off("SIGINT", onSignal).off("SIGTERM", onSignal);
    // What the signal would have done without us.
    process.kill(process.pid, by);
    throw error;
  } finally {
    process.off("SIGINT", onSignal).off("SIGTERM", onSignal);
  }
}
