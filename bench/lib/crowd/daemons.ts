import { setTimeout as pause } from "node:timers/promises";
import { isCode } from "../../../test/rig/lock.ts";
import { cpuSeconds } from "../cpu.ts";
import { peakResident } from "./machine.ts";
import type { System } from "./systems.ts";

/** CPU seconds of all daemons of a system since they started; of what is gone, nothing. */
export const cpuOf = async (system: System): Promise<number> =>
  (await ofEach(system, cpuSeconds)).reduce<number>((sum, one) => sum + (one ?? 0), 0);

/** Bytes that the one with the most has had resident; 0 where there is none. */
export const peakOf = async (system: System): Promise<number> =>
  Math.max(0, ...(await ofEach(system, peakResident)).map((one) => one ?? 0));

/** Indexes of daemons that ended by themselves. */
export const goneOf = async (system: System): Promise<number[]> =>
  (await ofEach(system, cpuSeconds)).flatMap((one, index) => (one === undefined ? [index] : []));

function ofEach(
  system: System,
  look: (pid: number) => Promise<number>,
): Promise<readonly (number | undefined)[]> {
  return Promise.all(
    system.daemons.map(async (pid) => {
      try {
        return await look(pid);
      } catch (error) {
        if (isCode(error, "ENOENT") || isCode(error, "ESRCH")) return undefined;
        throw error;
      }
    }),
  );
}

const IDLE_LOOKS = 20;
const IDLE_MS = 500;

/**
 * Until the daemons have done what they do after their start, for ten seconds at most: nodes run for months, and here
 * all of them share the cores.
 */
export async function untilIdle(system: System, signal: AbortSignal): Promise<void> {
  let last = await cpuOf(system);
  for (let look = 0; look < IDLE_LOOKS; look += 1) {
    await pause(IDLE_MS, undefined, { signal });
    const now = await cpuOf(system);
    // Ticks are 10 ms: an idle daemon may have had two.
    if (now - last <= 0.02 * system.daemons.length) return;
    last = now;
  }
}
