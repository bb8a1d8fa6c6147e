import type { MirrorStatus } from "../status.ts";

/** Bytes per second of each flight, by digest. */
export type Speeds = ReadonlyMap<string, number>;

/** Speeds between one look and the next. */
export class SpeedMeter {
  #before: { readonly at: number; readonly received: ReadonlyMap<string, number> } | undefined;

  /** `at` in milliseconds, of a clock that only goes forward. A flight that was not there before has no speed yet. */
  look({ flights }: Pick<MirrorStatus, "flights">, at: number): Speeds {
    const before = this.#before;
    const received = new Map(flights.map((flight) => [flight.digest, flight.received]));
    this.#before = { at, received };
    const speeds = new Map<string, number>();
    if (before === undefined || at <= before.at) return speeds;
    for (const [digest, bytes] of received) {
      const then = before.received.get(digest);
      if (then !== undefined) speeds.set(digest, (Math.max(0, bytes - then) * 1000) / (at - before.at));
    }
    return speeds;
  }
}
