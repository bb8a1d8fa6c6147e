import { collectDefaultMetrics, type Registry } from "prom-client";

/** A histogram of the event loop's delay is a timer that wakes the process; every ten milliseconds by default. */
const HARDLY_EVER_MS = 3_600_000;

/** What prom-client makes of that histogram. The delay at the moment of a scrape, `nodejs_eventloop_lag_seconds`, stays. */
const OF_THE_HISTOGRAM = ["min", "max", "mean", "stddev", "p50", "p90", "p99"];

/**
 * CPU, memory, handles and collections of this process, by the names that Node.js programs have for them; without what a
 * mirror at rest would wake up a hundred times a second for (docs/performance.md).
 */
export function collectProcessMetrics(register: Registry): void {
  collectDefaultMetrics({ register, eventLoopMonitoringPrecision: HARDLY_EVER_MS });
  for (const name of OF_THE_HISTOGRAM) register.removeSingleMetric(`nodejs_eventloop_lag_${name}_seconds`);
}
