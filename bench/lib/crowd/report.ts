import { median, rounded } from "../bench.ts";
import { crowdBound, directBound } from "./bound.ts";
import type { CrowdResult, NodeResult } from "./crowd.ts";
import type { CrowdOptions } from "./options.ts";
import { linksOf, type Site } from "./site.ts";

/** Percent of all cores above which a run measures cores, not links. */
export const MAX_LOAD = 70;
const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

/** One run of one system, in the terms of the targets. */
export interface Figures {
  /** From 1: the systems' runs of the same number are neighbours in time. */
  readonly run: number;
  readonly result: CrowdResult;
  /** Seconds of the nodes whose links are what the shape says (all but a slow one). */
  readonly last: number;
  readonly median: number;
  /** Of the slow node, where there is one. */
  readonly slow: number | undefined;
  /** Seconds below which `last` cannot be. */
  readonly bound: number;
  /** The same where all ask upstream and nobody else; none where nodes differ or do not begin together. */
  readonly directBound: number | undefined;
  /** Bytes out of upstream / bytes of the image. */
  readonly copies: number;
  /** The same without the headers of packets. */
  readonly payloadCopies: number;
  /** Bytes that the busiest of the nodes sent / bytes of the image. */
  readonly mostSent: number;
  /** Nodes that have every byte as it should be. */
  readonly right: number;
  /** Daemons' CPU seconds for each GiB that nodes received. */
  readonly cpuPerGib: number;
  readonly counts: boolean;
}

export function figuresOf(run: number, result: CrowdResult, options: CrowdOptions, site: Site): Figures {
  const isSlow = ({ index }: NodeResult): boolean => index === site.slow;
  const links = linksOf(options);
  const seconds = result.pullers.filter((one) => !isSlow(one)).map((one) => one.seconds);
  return {
    run,
    result,
    last: Math.max(...seconds),
    median: median(seconds),
    slow: result.pullers.find(isSlow)?.seconds,
    bound: crowdBound(site.image.bytes, seconds.length, links, options.seeded ? 1 : 0),
    directBound:
      options.slowNode || options.stagger !== 0
        ? undefined
        : directBound(site.image.bytes, seconds.length, links),
    copies: result.upstreamBytes / site.image.bytes,
    payloadCopies: result.upstreamPayload / site.image.bytes,
    mostSent: Math.max(...result.sentBytes) / site.image.bytes,
    right: result.pullers.filter(({ wrong }) => wrong.length === 0).length,
    cpuPerGib: result.daemonCpuSeconds / ((site.image.bytes * result.pullers.length) / GIB),
    counts: result.load.mean <= MAX_LOAD,
  };
}

export function rowOf(figures: Figures): Record<string, string | number> {
  const { result, last, median, slow, bound, copies, right } = figures;
  const { load } = result;
  return {
    nodes: result.nodes,
    "last s": rounded(last, 4),
    "median s": rounded(median, 4),
    ...(slow !== undefined && { "slow node s": rounded(slow, 4) }),
    "bound s": rounded(bound, 4),
    "last / bound": rounded(last / bound),
    "upstream / image (payload)": `${copies.toFixed(3)} (${figures.payloadCopies.toFixed(3)})`,
    "most sent / image": rounded(figures.mostSent, 2),
    "CPU % mean (peak)": `${load.mean.toFixed(0)} (${load.peak.toFixed(0)})${figures.counts ? "" : " LIMIT"}`,
    "daemons CPU s (per GiB)": `${result.daemonCpuSeconds.toFixed(1)} (${figures.cpuPerGib.toFixed(1)})`,
    "peak RSS MiB": Math.round(result.daemonPeakBytes / MIB),
    verified: `${right}/${result.pullers.length}`,
  };
}
