import { raceSignal } from "@p2p-mirror/shared";

/**
 * One piece of work per key at a time; whoever asks meanwhile shares it. A caller's signal ends its own waiting only:
 * the work must bound itself.
 */
export class SingleFlight<T> {
  readonly #running = new Map<string, Promise<T>>();

  async run(key: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    let running = this.#running.get(key);
    if (running === undefined) {
      running = work().finally(() => this.#running.delete(key));
      // Everybody may have left before it fails.
      running.catch(() => undefined);
      this.#running.set(key, running);
    }
    return raceSignal(running, signal);
  }
}
