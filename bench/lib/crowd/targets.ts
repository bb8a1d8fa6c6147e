import { atMost, atLeast, median, type Target } from "../bench.ts";
import type { CrowdOptions } from "./options.ts";
import { MAX_LOAD, type Figures } from "./report.ts";

/** What was measured of one system, a run each. `lone`: one node with nobody else, where the shape compares with it. */
export interface Measured {
  readonly direct: readonly Figures[];
  readonly cache: readonly Figures[];
  readonly mirror: readonly Figures[];
  readonly lone: readonly Figures[];
}

const MIB = 1024 * 1024;
/** Resident, of one daemon, whatever it relays. */
const MAX_RESIDENT_MIB = 200;

/** What the mirror must reach in this shape: medians of the runs, but everything in every run where it is about bytes. */
export function targetsOf(measured: Measured, options: CrowdOptions): Target[] {
  const { mirror } = measured;
  const all = [...measured.direct, ...measured.cache, ...mirror, ...measured.lone];
  const of = (pick: (one: Figures) => number): number => median(mirror.map(pick));
  const targets: Target[] = [
    atLeast(
      "share of pulls of all systems that ended with every byte right",
      sum(all, ({ right }) => right) / sum(all, ({ result }) => result.pullers.length),
      1,
    ),
  ];
  if (mirror.length === 0) return targets;
  targets.push(
    atMost("peak RSS of a mirror", of(({ result }) => result.daemonPeakBytes) / MIB, MAX_RESIDENT_MIB, "MiB"),
    atMost(
      "bytes out of upstream / image",
      of(({ copies }) => copies),
      options.seeded ? 0.3 : 1.05,
    ),
  );
  if (options.shape === "fast") return targets;
  // What cores limited says nothing of the links.
  targets.push(
    atMost(
      "mean CPU of a run that counts",
      of(({ result }) => result.load.mean),
      MAX_LOAD,
      "%",
    ),
  );
  return [...targets, ...timesOf(measured, options, of)];
}

function timesOf(
  { mirror, direct, lone }: Measured,
  options: CrowdOptions,
  of: (pick: (one: Figures) => number) => number,
): Target[] {
  const toBound = of(({ last, bound }) => last / bound);
  if (options.slowNode) return [atMost("last of the other nodes / bound without the slow one", toBound, 1.2)];
  if (options.stagger !== 0) {
    const slowest = slowestAgainst(mirror, direct);
    return slowest === undefined ? [] : [atMost("slowest node against itself by direct", slowest, 1)];
  }
  if (options.wanPerNode !== undefined) {
    if (lone.length === 0) return [];
    const alone = median(lone.map(({ last }) => last));
    return [atMost("last node / one node alone", of(({ last }) => last) / alone, 1.5 / options.nodes)];
  }
  if (options.shape === "small") {
    return [
      atMost(
        "last node after the bound",
        of(({ last, bound }) => last - bound),
        0.5,
        "s",
      ),
    ];
  }
  return [atMost("last node / bound", toBound, 1.15)];
}

/** The worst of all nodes: its time by the mirror / its time by direct, of the same run. */
function slowestAgainst(mirror: readonly Figures[], direct: readonly Figures[]): number | undefined {
  const ratios = mirror.flatMap(({ result }, run) =>
    result.pullers.flatMap(({ index, seconds }) => {
      const other = direct[run]?.result.pullers.find((one) => one.index === index);
      return other === undefined ? [] : [seconds / other.seconds];
    }),
  );
  return ratios.length === 0 ? undefined : Math.max(...ratios);
}

const sum = (figures: readonly Figures[], pick: (one: Figures) => number): number =>
  figures.reduce((total, one) => total + pick(one), 0);
