import type { Logger } from "@p2p-mirror/shared";

const INTERVAL_MS = 30_000;

export interface UpkeepDeps {
  readonly logger: Logger;
  /** In this order; one that fails does not keep the others from running. */
  readonly tasks: readonly (() => Promise<void> | void)[];
}

/** What must happen now and then while nobody asks for it: at once after the start, then every 30 seconds. */
export class Upkeep {
  readonly #deps: UpkeepDeps;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #closed = false;

  constructor(deps: UpkeepDeps) {
    this.#deps = deps;
  }

  start(): void {
    this.#schedule(0);
  }

  /** One round, or the one under way. */
  run(): Promise<void> {
    this.#running ??= this.#round().finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#running;
  }

  #schedule(afterMs: number): void {
    this.#timer = setTimeout(() => {
      void this.run().finally(() => {
        if (!this.#closed) this.#schedule(INTERVAL_MS);
      });
    }, afterMs);
  }

  async #round(): Promise<void> {
    for (const task of this.#deps.tasks) {
      if (this.#closed) return;
      try {
        await task();
      } catch (error) {
        this.#deps.logger.warn({ err: error }, "upkeep of the cache failed");
      }
    }
  }
}
