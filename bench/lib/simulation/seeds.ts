import { percentile, rounded } from "../bench.ts";
import type { Blobs } from "./blobs.ts";
import { disturbed, type Disturbed } from "./disturbed.ts";
import { FAULTS, type FaultKind } from "./faults.ts";

export interface SeedsOptions {
  readonly first: number;
  readonly count: number;
  readonly faults: readonly FaultKind[];
  readonly say: (text: string) => void;
}

export interface SeedsResult {
  readonly failed: readonly Disturbed[];
  readonly summary: SeedsSummary;
}

/** What was simulated: how many runs had so many nodes, so many faults, and each kind of fault; and how they went. */
export interface SeedsSummary {
  readonly runs: number;
  readonly byNodes: Readonly<Record<string, number>>;
  readonly byFaults: Readonly<Record<string, number>>;
  readonly byKind: Readonly<Record<string, number>>;
  readonly copies: Readonly<Record<string, number>>;
  readonly failedPulls: number;
  /** Runs in which no source was left. */
  readonly sourceless: number;
}

/** The command that runs one seed again. */
export function replayOf({ seed }: Disturbed, faults: readonly FaultKind[]): string {
  const some = faults.length < FAULTS.length ? ` --faults ${JSON.stringify(faults.join(","))}` : "";
  return `npm run bench -- simulate --nodes 0 --seeds 1 --seed ${seed}${some}`;
}

/** One crowd with faults after the other. */
export async function runSeeds(options: SeedsOptions, blobs: Blobs): Promise<SeedsResult> {
  const { first, count, faults, say } = options;
  const runs: Disturbed[] = [];
  for (let seed = first; seed < first + count; seed += 1) {
    const run = await disturbed({ seed, faults }, blobs);
    runs.push(run);
    if (run.problem !== undefined || count === 1)
      say(
        `seed ${seed}: ${run.nodes} nodes, ${run.faults.join(", ")}: ${run.problem ?? "all is well"} ` +
          `(${rounded(run.seconds)} s, ${rounded(run.copies)} copies)\n  ${replayOf(run, faults)}`,
      );
  }
  const summary = summaryOf(runs);
  say(textOf(summary));
  return { failed: runs.filter(({ problem }) => problem !== undefined), summary };
}

function summaryOf(runs: readonly Disturbed[]): SeedsSummary {
  const copies = runs.map((run) => run.copies);
  return {
    runs: runs.length,
    byNodes: counts(runs.map(({ nodes }) => `${nodes}`)),
    byFaults: counts(runs.map((run) => `${run.faults.length}`)),
    byKind: counts(runs.flatMap((run) => run.faults)),
    copies: {
      median: rounded(percentile(copies, 0.5)),
      p90: rounded(percentile(copies, 0.9)),
      most: rounded(percentile(copies, 1)),
    },
    failedPulls: runs.reduce((sum, run) => sum + run.failedPulls, 0),
    sourceless: runs.filter(({ sourceless }) => sourceless).length,
  };
}

export const textOf = ({ runs, byNodes, byFaults, byKind, copies, ...more }: SeedsSummary): string =>
  [
    `${runs} crowds with faults; ${more.failedPulls} pulls had to be repeated; ${more.sourceless} had no source left`,
    `  nodes:  ${list(byNodes)}`,
    `  faults: ${list(byFaults)}`,
    `  kinds:  ${list(byKind)}`,
    `  copies out of upstream: ${list(copies)}`,
  ].join("\n");

const list = (all: Readonly<Record<string, number>>): string =>
  Object.entries(all)
    .map(([what, count]) => `${what}: ${count}`)
    .join(", ");

function counts(values: readonly string[]): Record<string, number> {
  const result: Record<string, number> = {};
  for (const value of values.toSorted()) result[value] = (result[value] ?? 0) + 1;
  return result;
}
