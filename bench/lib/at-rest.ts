import { setTimeout as sleep } from "node:timers/promises";
import { atMost, type Target } from "./bench.ts";

/** The doctor looks around 10 s after the start, and the caches of a start are given back. */
const SETTLING_MS = 30_000;

/**
 * Lets a mirror settle and watches it.
 * @param cpu seconds that it has used so far
 * @returns its share of a core meanwhile, in percent
 */
export async function cpuAtRest(watchedSeconds: number, cpu: () => Promise<number>): Promise<number> {
  await sleep(SETTLING_MS);
  const before = await cpu();
  const from = performance.now();
  await sleep(watchedSeconds * 1000);
  return (100 * ((await cpu()) - before)) / ((performance.now() - from) / 1000);
}

export const restTargets = (residentMib: number, cpuPercent: number): readonly Target[] => [
  atMost("resident memory at rest", residentMib, 110, "MiB"),
  atMost("CPU at rest, % of a core", cpuPercent, 1),
];
