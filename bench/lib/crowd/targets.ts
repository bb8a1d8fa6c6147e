import { atMost, atLeast, median, type Target } from "../bench.ts";
import type { CrowdOptions } from "./options.ts";
import { MAX_LOAD, type Figures } from "./report.ts";

/**
 * What was measured, a run each. Of the mirror besides, where these are what the crowd is compared with: `lone`, one node
 * with nobody else; `plain`, one node that fetches from one that holds the image; `paced`, the same with links on which
 * it takes as long as the crowd must: what a pull costs goes by time as much as by bytes.
 */
export interface Measured {
  readonly direct: readonly Figures[];
  readonly cache: readonly Figures[];
  readonly mirror: readonly Figures[];
  readonly lone: readonly Figures[];
  readonly plain: readonly Figures[];
  readonly paced: readonly Figures[];
}

const MIB = 1024 * 1024;
/** Resident, of one daemon, whatever it relays. */
const MAX_RESIDENT_MIB = 200;

/**
 * What the mirror must reach in this shape: by the medians of the runs that count where it is about time, in every run
 * where it is about bytes.
 */
export function targetsOf(measured: Measured, options: CrowdOptions): Target[] {
  const { mirror, plain, paced } = measured;
  const all = Object.values<readonly Figures[]>({ ...measured }).flat();
  const right = sum(all, ({ right }) => right) / sum(all, ({ result }) => result.pullers.length);
  const targets = [
    atLeast("share of pulls of all systems that ended with every byte right", right, 1),
    ...rigOf(measured.direct),
  ];
  if (mirror.length === 0) return targets;
  const gone = sum([...mirror, ...plain, ...paced, ...measured.lone], ({ result }) => result.daemonsGone);
  const most = (pick: (one: Figures) => number): number => Math.max(...mirror.map(pick));
  const resident = most(({ result }) => result.daemonPeakBytes) / MIB;
  const copies = most(({ copies }) => copies);
  targets.push(
    atMost("mirrors that ended by themselves", gone, 0),
    atMost("peak RSS of a mirror", resident, MAX_RESIDENT_MIB, "MiB"),
    atMost("bytes out of upstream / image", copies, options.seeded ? 0.3 : 1.05),
  );
  for (const [what, fetches] of [
    ["as fast as the links are", plain],
    ["in the crowd's time", paced],
  ] as const) {
    if (fetches.length === 0) continue;
    const cost = medianOf(mirror, (one) => one.cpuPerGib) / medianOf(fetches, (one) => one.cpuPerGib);
    targets.push(
      atMost(`CPU of the mirrors per GiB / that of a plain fetch from a peer, ${what}`, cost, 1.3),
    );
  }
  if (options.shape === "fast") return targets;
  // What cores limited says nothing of the links.
  const counting = mirror.filter(({ counts }) => counts);
  targets.push(atLeast(`runs that count (mean CPU at most ${MAX_LOAD} %)`, counting.length, 1));
  const mirrors = counting.length === 0 ? mirror : counting;
  return [...targets, ...timesOf({ ...measured, mirror: mirrors }, options)];
}

/**
 * Whether the links are what they are said to be: without anything between, a crowd takes what its bytes take through
 * upstream's link, and little more. Buckets that are full at the start make it a little less.
 */
function rigOf(direct: readonly Figures[]): Target[] {
  const ratios = direct.flatMap(({ last, directBound, counts }) =>
    counts && directBound !== undefined ? [last / directBound] : [],
  );
  if (ratios.length === 0) return [];
  const ratio = median(ratios);
  const what = "the rig: last node by direct / what its copies take";
  return [atLeast(what, ratio, 0.97), atMost(what, ratio, 1.1)];
}

function timesOf({ mirror, direct, lone }: Measured, options: CrowdOptions): Target[] {
  const toBound = medianOf(mirror, ({ last, bound }) => last / bound);
  if (options.slowNode) return [atMost("last of the other nodes / bound without the slow one", toBound, 1.2)];
  if (options.stagger !== 0) {
    const slowest = slowestAgainst(mirror, direct);
    return slowest === undefined ? [] : [atMost("slowest node against itself by direct", slowest, 1)];
  }
  if (options.wanPerNode !== undefined) {
    if (lone.length === 0) return [];
    const share = medianOf(mirror, ({ last }) => last) / medianOf(lone, ({ last }) => last);
    return [atMost("last node / one node alone", share, 1.5 / options.nodes)];
  }
  if (options.shape === "small") {
    const after = medianOf(mirror, ({ last, bound }) => last - bound);
    return [atMost("last node after the bound", after, 0.5, "s")];
  }
  return [atMost("last node / bound", toBound, 1.15)];
}

const medianOf = (figures: readonly Figures[], pick: (one: Figures) => number): number =>
  median(figures.map(pick));

/** The worst of all nodes: its time by the mirror / its time by direct, of the same run. */
function slowestAgainst(mirror: readonly Figures[], direct: readonly Figures[]): number | undefined {
  const ratios = mirror.flatMap(({ result, run }) =>
    result.pullers.flatMap(({ index, seconds }) => {
      const other = direct.find((one) => one.run === run)?.result.pullers.find((one) => one.index === index);
      return other === undefined ? [] : [seconds / other.seconds];
    }),
  );
  return ratios.length === 0 ? undefined : Math.max(...ratios);
}

const sum = (figures: readonly Figures[], pick: (one: Figures) => number): number =>
  figures.reduce((total, one) => total + pick(one), 0);
