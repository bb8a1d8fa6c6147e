/** N nodes pull the same new image in the same second: what it costs upstream and how long the last one waits. */
import { component } from "../test/rig/components.ts";
import { probeNetworks } from "../test/rig/netns.ts";
import type { BenchResult } from "./lib/bench.ts";
import { runCrowd, type CrowdDeps } from "./lib/crowd/crowd.ts";
import { parseCrowdOptions, type CrowdOptions } from "./lib/crowd/options.ts";
import { figuresOf, rowOf, type Figures } from "./lib/crowd/report.ts";
import type { SystemName } from "./lib/crowd/shapes.ts";
import { openSite } from "./lib/crowd/site.ts";
import { targetsOf } from "./lib/crowd/targets.ts";
import { build, residentMemory } from "./lib/programs.ts";

export const name = "flash-crowd";
export const description =
  "N real containerds on shaped links pull a new image at once: direct, through a cache, by the mirror (--help; root)";

export interface CrowdBenchResult extends BenchResult {
  /** All there is to know of every run, for the line of JSON. */
  readonly details: object;
}

/** As the bench, for who ends it by a signal and prints progress elsewhere. */
export async function flashCrowd(
  options: CrowdOptions,
  { signal, say }: { readonly signal: AbortSignal; readonly say: (text: string) => void },
): Promise<CrowdBenchResult> {
  await probeNetworks();
  const registry = await component("docker-registry");
  const containerd = await component(`containerd-${options.containerd}`);
  if (options.systems.includes("mirror") && !options.sources) await build();
  await using site = await openSite(options, registry);
  signal.throwIfAborted();
  say(
    `${options.nodes} nodes, containerd ${containerd.version}, ${options.size} MiB in ${options.layers} layers, ` +
      `seed "${options.seed}", upstream ${options.upstreamRate} Mbit/s, nodes ${options.nodeRate} Mbit/s`,
  );
  const measured = { direct: [], cache: [], mirror: [], lone: [] } satisfies Record<string, Figures[]>;
  const kinds: Record<keyof typeof measured, Figures[]> = measured;
  const rows: Record<string, string | number>[] = [];
  const deps: CrowdDeps = { site, registry, containerd, signal };
  const measure = async (run: number, system: SystemName, kind: keyof typeof measured, nodes: number) => {
    // Each node writes what it pulls, and its mirror does so again.
    await residentMemory(2 * nodes * site.image.bytes);
    const now = { ...options, nodes };
    const figures = figuresOf(await runCrowd(system, now, deps), now, site);
    const row = rowOf(figures, run, site);
    kinds[kind].push(figures);
    rows.push(row);
    say(
      Object.entries(row)
        .map(([what, value]) => `${what} ${value}`)
        .join(", "),
    );
    for (const { index, wrong } of figures.result.pullers) {
      for (const one of wrong) say(`node ${index + 1}: ${one}`);
    }
  };
  for (let run = 1; run <= options.runs; run += 1) {
    for (const system of options.systems) {
      if (system === "mirror" && options.wanPerNode !== undefined) await measure(run, system, "lone", 1);
      await measure(run, system, system, options.nodes);
    }
  }
  return {
    rows,
    targets: targetsOf(measured, options),
    details: {
      options,
      containerd: containerd.version,
      registry: registry.version,
      congestionControl: site.upstreamPlace.congestionControl,
      imageBytes: site.image.bytes,
      payloadRates: site.links,
      runs: Object.values(kinds).flat(),
    },
  };
}

/** Options: `--help`. */
export async function run(args: readonly string[]): Promise<BenchResult> {
  const options = parseCrowdOptions(args);
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
    return await flashCrowd(options, { signal: stop.signal, say: (text) => console.error(text) });
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
