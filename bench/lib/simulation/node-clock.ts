import type { Clock } from "@p2p-mirror/shared";

/**
 * The time of one process: it may be stopped (SIGSTOP: what was due happens when it goes on) and ends with the process
 * (kill -9: nothing happens any more).
 */
export class NodeClock implements Clock {
  readonly #clock: Clock;
  readonly #timers = new Set<() => void>();
  #due: (() => void)[] = [];
  #stopped = false;
  #over = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  now(): number {
    return this.#clock.now();
  }

  date(): number {
    return this.#clock.date();
  }

  after(ms: number, callback: () => void): () => void {
    if (this.#over) return () => undefined;
    let taken = false;
    const run = (): void => {
      if (!taken) callback();
    };
    const cancel = this.#clock.after(ms, () => {
      this.#timers.delete(cancel);
      if (this.#stopped) this.#due.push(run);
      else run();
    });
    this.#timers.add(cancel);
    return () => {
      taken = true;
      this.#timers.delete(cancel);
      cancel();
    };
  }

  stop(): void {
    this.#stopped = true;
  }

  goOn(): void {
    if (!this.#stopped) return;
    this.#stopped = false;
    for (const run of this.#due.splice(0)) this.#clock.after(0, () => this.#over || run());
  }

  end(): void {
    this.#over = true;
    this.#due = [];
    for (const cancel of this.#timers) cancel();
    this.#timers.clear();
  }
}
