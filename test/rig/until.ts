import { setTimeout as pause } from "node:timers/promises";
import { RigError } from "./errors.ts";

export interface UntilOptions {
  /** Milliseconds, default 15,000. */
  readonly timeoutMs?: number;
  /** Milliseconds between two looks, once the first ones, close together, were for nothing; default 20. */
  readonly everyMs?: number;
  readonly signal?: AbortSignal | undefined;
  /** Added to the error: what the person reading it wants to see, such as a log. */
  readonly detail?: () => string;
}

/**
 * Looks at a condition until it holds: `probe` gives a value that is neither undefined nor false. A probe that throws
 * counts as "not yet"; its last error is the cause when time is up (RigError NEVER_HAPPENED).
 */
export async function until<T>(
  what: string,
  probe: () => T | Promise<T>,
  options: UntilOptions = {},
): Promise<Exclude<T, undefined | false>> {
  const { timeoutMs = 15_000, everyMs = 20, signal, detail } = options;
  const deadline = performance.now() + timeoutMs;
  for (let pauseMs = 1; ; pauseMs = Math.min(pauseMs * 2, everyMs)) {
    signal?.throwIfAborted();
    let last: unknown;
    try {
      const value = await probe();
      if (isThere(value)) return value;
    } catch (error) {
      last = error;
    }
    if (performance.now() >= deadline) {
      const more = detail === undefined ? "" : `\n${detail()}`;
      throw new RigError("NEVER_HAPPENED", `${what}: not within ${timeoutMs} ms${more}`, { cause: last });
    }
    await pause(pauseMs, undefined, { signal });
  }
}

const isThere = <T>(value: T): value is Exclude<T, undefined | false> =>
  value !== undefined && value !== false;
