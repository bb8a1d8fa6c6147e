import { raceSignal, SourceError, type Clock } from "@p2p-mirror/shared";

/** A flight waits so long without a byte while there is hope; containerd gives a pull up after 5 minutes. */
export const PATIENCE_MS = 45_000;
/**
 * Where upstream is out of reach and what peers gave was dropped as wrong, though it may be what signers said that is: the flight
 * believes neither any more, and may have nobody left to ask while others have everything. The next one finds out who lied.
 */
export const SUSPECT_PATIENCE_MS = 5_000;

/**
 * Does `work`, and again when upstream said when (Retry-After) and that is within the patience: a 404 in between would
 * only send the client, and every other node's, upstream by itself. `until`: milliseconds by the
 * clock; `failure`: what the first try, already done, ended in.
 */
export async function patiently<T>(
  work: () => Promise<T>,
  until: number,
  clock: Clock,
  signal: AbortSignal,
  failure?: SourceError,
): Promise<T> {
  for (let error = failure; ;) {
    if (error !== undefined) {
      const wait = error.retryAfterMs;
      if (wait === undefined || clock.now() + wait > until) throw error;
      await pause(wait, clock, signal);
    }
    try {
      return await work();
    } catch (next) {
      if (!(next instanceof SourceError)) throw next;
      error = next;
    }
  }
}

/** Waits by the clock. Throws when `signal` aborts. */
export async function pause(ms: number, clock: Clock, signal: AbortSignal): Promise<void> {
  const over = Promise.withResolvers<void>();
  const cancel = clock.after(ms, over.resolve);
  try {
    await raceSignal(over.promise, signal);
  } finally {
    cancel();
  }
}
