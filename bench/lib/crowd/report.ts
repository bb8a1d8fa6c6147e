import { median, rounded } from "../bench.ts";
import { crowdBound } from "./bound.ts";
import type { CrowdResult, NodeResult } from "./crowd.ts";
import type { CrowdOptions } from "./options.ts";
import type { Site } from "./site.ts";

/** Percent of all cores above which a run measures cores, not links. */
export const MAX_LOAD = 70;
const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

/** One run of one system, in the terms of the targets. */
export interface Figures {
  readonly result: CrowdResult;
  /** Seconds of the nodes whose links are what the shape says (all but a slow one). */
  readonly last: number;
  readonly median: number;
  /** Of the slow node, where there is one. */
  readonly slow: number | undefined;
  /** Seconds below which `last` cannot be. */
  readonly bound: number;
  /** Bytes out of upstream / bytes of the image. */
  readonly copies: number;
  /** Nodes that have every byte as it should be. */
  readonly right: number;
  readonly counts: boolean;
}

export function figuresOf(result: CrowdResult, options: CrowdOptions, site: Site): Figures {
  const isSlow = ({ index }: NodeResult): boolean => index === site.slow;
  const seconds = result.pullers.filter((one) => !isSlow(one)).map((one) => one.seconds);
  return {
    result,
    last: Math.max(...seconds),
    median: median(seconds),
    slow: result.pullers.find(isSlow)?.seconds,
    bound: crowdBound(site.image.bytes, seconds.length, site.links, options.seeded ? 1 : 0),
    copies: result.upstreamBytes / site.image.bytes,
    right: result.pullers.filter(({ wrong }) => wrong.length === 0).length,
    counts: result.load.mean <= MAX_LOAD,
  };
}

export function rowOf(figures: Figures, run: number, site: Site): Record<string, string | number> {
  const { result, last, median, slow, bound, copies, right } = figures;
  const delivered = (site.image.bytes * result.pullers.length) / GIB;
  const { load } = result;
  return {
    run,
    system: result.system,
    nodes: result.nodes,
    "last s": rounded(last, 4),
    "median s": rounded(median, 4),
    ...(slow !== undefined && { "slow node s": rounded(slow, 4) }),
    "bound s": rounded(bound, 4),
    "last / bound": rounded(last / bound),
    "upstream / image": rounded(copies),
    "CPU % mean (peak)": `${load.mean.toFixed(0)} (${load.peak.toFixed(0)})${figures.counts ? "" : " LIMIT"}`,
    "daemons CPU s (per GiB)": `${result.daemonCpuSeconds.toFixed(1)} (${(result.daemonCpuSeconds / delivered).toFixed(1)})`,
    "peak RSS MiB": Math.round(result.daemonPeakBytes / MIB),
    verified: `${right}/${result.pullers.length}`,
  };
}
