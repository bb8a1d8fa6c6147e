import { setTimeout as delay } from "node:timers/promises";

/** Resolves when the condition holds; rejects with its name when it does not within `ms` milliseconds. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  what: string,
  ms = 10_000,
): Promise<void> {
  const deadline = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within ${ms} ms: ${what}`);
    await delay(5);
  }
}
