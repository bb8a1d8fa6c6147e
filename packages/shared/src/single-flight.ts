import { raceSignal } from "./abort.ts";

/**
 * Callers who want the same thing at the same time share one piece of work. A caller who leaves (its signal aborts) ends
 * its own waiting only; the work goes on for the others, under its own signal and deadline.
 */
export class SingleFlight<T> {
  readonly #running = new Map<string, Promise<T>>();

  /** Joins the work for `key`, or starts it. */
  run(key: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    let running = this.#running.get(key);
    if (running === undefined) {
      running = work().finally(() => this.#running.delete(key));
      // Everybody may have left by the time it fails.
      running.catch(() => undefined);
      this.#running.set(key, running);
    }
    return raceSignal(running, signal);
  }

  /** Resolves when nothing is running any more, however it ends. */
  async settled(): Promise<void> {
    while (this.#running.size > 0) await Promise.allSettled(this.#running.values());
  }
}
