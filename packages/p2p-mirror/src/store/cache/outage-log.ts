import type { IndexDb } from "./index-db.ts";

interface Outage {
  readonly started: number;
  ended: number;
}

/**
 * When each registry could not be reached, so that a TTL can leave that time out: content must not expire because the
 * place to fetch it from again is gone. Kept over restarts. Times are milliseconds since the epoch.
 */
export class OutageLog {
  readonly #db: IndexDb;
  readonly #outages = new Map<string, Outage[]>();
  readonly #lastLook = new Map<string, number>();

  constructor(db: IndexDb) {
    this.#db = db;
  }

  load(): void {
    for (const row of this.#db.all("SELECT registry, started, ended FROM outages ORDER BY started")) {
      this.#of(String(row["registry"])).push({
        started: Number(row["started"]),
        ended: Number(row["ended"]),
      });
    }
  }

  /**
   * What a regular look at the registry found. Between two looks the second one counts for all of the time (when in
   * doubt, keep); before the first one nothing is known and the time counts as reachable.
   */
  note(registry: string, reachable: boolean, now: number): void {
    const since = this.#lastLook.get(registry) ?? now;
    this.#lastLook.set(registry, now);
    if (reachable) return;
    const outages = this.#of(registry);
    const last = outages.at(-1);
    if (last !== undefined && last.ended >= since) last.ended = now;
    else outages.push({ started: since, ended: now });
    const { started, ended } = outages.at(-1) ?? { started: since, ended: now };
    this.#db.run(
      "INSERT OR REPLACE INTO outages (registry, started, ended) VALUES (?, ?, ?)",
      registry,
      started,
      ended,
    );
  }

  /** Milliseconds of outage between two times. */
  between(registry: string, from: number, to: number): number {
    let sum = 0;
    for (const { started, ended } of this.#of(registry)) {
      sum += Math.max(0, Math.min(to, ended) - Math.max(from, started));
    }
    return sum;
  }

  /** Outages that ended before this no longer matter to anything held. */
  forgetBefore(registry: string, time: number): void {
    const outages = this.#of(registry);
    if ((outages[0]?.ended ?? time) >= time) return;
    this.#outages.set(
      registry,
      outages.filter((outage) => outage.ended >= time),
    );
    this.#db.run("DELETE FROM outages WHERE registry = ? AND ended < ?", registry, time);
  }

  #of(registry: string): Outage[] {
    let outages = this.#outages.get(registry);
    if (outages === undefined) {
      outages = [];
      this.#outages.set(registry, outages);
    }
    return outages;
  }
}
