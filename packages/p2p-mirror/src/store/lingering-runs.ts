import { linkSignal, raceSignal, type LinkedSignal } from "@p2p-mirror/shared";

interface Run {
  readonly promise: Promise<unknown>;
  readonly link: LinkedSignal;
  waiting: number;
  over: boolean;
  timer?: NodeJS.Timeout;
}

/**
 * Work that many wait for and that is done once: by key, at most one run at a time. It goes on for `lingerMs` after the
 * last who waited has left, so that whoever gives up on it and asks again finds it further on.
 */
export class LingeringRuns {
  readonly #lingerMs: number;
  readonly #runs = new Map<string, Run>();
  readonly #unsettled = new Set<Promise<unknown>>();
  #closed = false;

  /** @param lingerMs milliseconds */
  constructor(lingerMs: number) {
    this.#lingerMs = lingerMs;
  }

  /** Joins the run of `key`, or begins it. @throws what the work throws, and the signal's reason */
  async join(
    key: string,
    work: (signal: AbortSignal) => Promise<unknown>,
    signal?: AbortSignal,
  ): Promise<void> {
    const run = this.#runs.get(key) ?? this.#begin(key, work);
    run.waiting += 1;
    clearTimeout(run.timer);
    try {
      await raceSignal(run.promise, signal);
    } finally {
      run.waiting -= 1;
      if (run.waiting === 0 && !run.over) this.#linger(key, run);
    }
  }

  /** Ends all runs and waits for their end; none begins after. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const [key, run] of this.#runs) this.#end(key, run);
    await Promise.allSettled(this.#unsettled);
  }

  #begin(key: string, work: (signal: AbortSignal) => Promise<unknown>): Run {
    const link = linkSignal([]);
    if (this.#closed) link.abort();
    const promise = work(link.signal).finally(() => {
      run.over = true;
      link.release();
      this.#end(key, run);
      this.#unsettled.delete(promise);
    });
    const run: Run = { promise, link, waiting: 0, over: false };
    this.#unsettled.add(promise);
    // Whoever waits gets the error; when everybody left, nobody does.
    promise.catch(() => undefined);
    this.#runs.set(key, run);
    return run;
  }

  #linger(key: string, run: Run): void {
    run.timer = setTimeout(() => this.#end(key, run), this.#lingerMs);
    // What nobody waits for keeps no process alive.
    run.timer.unref();
  }

  #end(key: string, run: Run): void {
    clearTimeout(run.timer);
    if (this.#runs.get(key) === run) this.#runs.delete(key);
    if (!run.over) run.link.abort();
  }
}
