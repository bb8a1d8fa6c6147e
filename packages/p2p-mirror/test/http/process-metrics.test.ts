import { Registry } from "prom-client";
import t from "tap";
import { collectProcessMetrics } from "../../src/http/process-metrics.ts";

await t.test(
  "metrics of the process come by their usual names, without a clock that wakes it up",
  async (t) => {
    const registry = new Registry();
    collectProcessMetrics(registry);
    const text = await registry.metrics();
    for (const name of [
      "process_cpu_seconds_total",
      "process_resident_memory_bytes",
      "process_open_fds",
      "nodejs_eventloop_lag_seconds",
      "nodejs_heap_size_used_bytes",
      "nodejs_gc_duration_seconds",
      "nodejs_version_info",
    ]) {
      t.match(text, new RegExp(`^# TYPE ${name} `, "m"));
    }
    t.notMatch(text, /nodejs_eventloop_lag_(?!seconds )\w+/);
  },
);
