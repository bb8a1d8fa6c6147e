import type { Clock } from "@p2p-mirror/shared";

/** Time that goes so many times faster, for what takes seconds by design. */
export class HurriedClock implements Clock {
  readonly #times: number;
  readonly #began = performance.now();

  constructor(times: number) {
    this.#times = times;
  }

  now(): number {
    return (performance.now() - this.#began) * this.#times;
  }

  date(): number {
    return Date.now();
  }

  after(ms: number, callback: () => void): () => void {
    const timer = setTimeout(callback, ms / this.#times);
    return () => clearTimeout(timer);
  }
}
