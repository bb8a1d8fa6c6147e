/** Time as a port, so that the logic of transfers also runs on a simulated clock. */
export interface Clock {
  /** Milliseconds since some moment; never goes back, whatever happens to the machine's date. For how long things take. */
  now(): number;
  /**
   * Milliseconds since the epoch, by the machine's date, which may jump either way (NTP after a start without a battery).
   * For what is told to others or kept over a restart.
   */
  date(): number;
  /** Calls once after `ms` milliseconds; the returned function takes it back. */
  after(ms: number, callback: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  date: () => Date.now(),
  after: (ms, callback) => {
    // Less than nothing may be left by the time it is asked for; Node.js warns of that.
    const timer = setTimeout(callback, Math.max(0, ms));
    return () => clearTimeout(timer);
  },
};
