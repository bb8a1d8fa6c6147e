import { Counter, Registry } from "prom-client";
import t from "tap";
import { MetricsEndpoint } from "../../src/http/metrics-endpoint.ts";

await t.test("the metrics, and nothing else of what the admin endpoint has", async (t) => {
  const registry = new Registry();
  new Counter({ name: "a_total", help: "a", registers: [registry] }).inc();
  const endpoint = new MetricsEndpoint({ host: "127.0.0.1", port: 0 }, { registry });
  t.teardown(() => endpoint.close());
  await endpoint.start(new AbortController().signal);
  const metrics = await fetch(`${endpoint.url}/metrics`);
  t.match(metrics.headers.get("content-type"), /^text\/plain/);
  t.match(await metrics.text(), /^a_total 1$/m);
  for (const path of ["/status", "/readyz", "/"]) {
    t.equal((await fetch(endpoint.url + path)).status, 404, path);
  }
  const second = new MetricsEndpoint(
    { host: "127.0.0.1", port: Number(new URL(endpoint.url).port) },
    { registry },
  );
  t.teardown(() => second.close());
  await t.rejects(second.start(new AbortController().signal), { message: /^metrics-listen: / });
});
