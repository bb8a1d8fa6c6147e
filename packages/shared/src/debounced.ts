export interface DebouncedOptions {
  /** Milliseconds of quiet before it runs. */
  readonly quietMs: number;
  /** Milliseconds after the first request when it runs although there is no quiet. */
  readonly mostMs: number;
}

/** Runs something once after a burst of requests. */
export class Debounced {
  readonly #options: DebouncedOptions;
  readonly #run: () => void;
  #timer: NodeJS.Timeout | undefined;
  #latest = 0;
  #closed = false;

  constructor(options: DebouncedOptions, run: () => void) {
    this.#options = options;
    this.#run = run;
  }

  request(): void {
    if (this.#closed) return;
    const now = performance.now();
    if (this.#timer === undefined) this.#latest = now + this.#options.mostMs;
    clearTimeout(this.#timer);
    const wait = Math.max(0, Math.min(this.#options.quietMs, this.#latest - now));
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#run();
    }, wait);
  }

  /** Nothing runs any more, and no timer is left, whoever still asks. */
  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
