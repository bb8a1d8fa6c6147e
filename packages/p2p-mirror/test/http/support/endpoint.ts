import type { Test } from "tap";
import { Registry } from "prom-client";
import { createLogger } from "@p2p-mirror/shared";
import { createHttpMetrics } from "../../../src/http/metrics.ts";
import { createRegistryEndpoint, type RegistryEndpointOptions } from "../../../src/http/registry-endpoint.ts";
import { ScriptedAccess, ScriptedContent } from "./scripted-content.ts";

/** Lines of a log, parsed. */
export class LogLines {
  readonly lines: Record<string, unknown>[] = [];
  readonly raw: string[] = [];

  write(line: string): void {
    this.raw.push(line);
    const parsed: unknown = JSON.parse(line);
    if (typeof parsed === "object" && parsed !== null) this.lines.push({ ...parsed });
  }

  /** Lines of a pino level (20 debug, 30 info, 40 warn, 50 error). */
  at(level: number): Record<string, unknown>[] {
    return this.lines.filter((line) => line["level"] === level);
  }
}

/** A running registry endpoint on a free port with a scripted content behind it; closed at the end of the test. */
export async function startEndpoint(t: Test, options: Partial<RegistryEndpointOptions> = {}) {
  const content = new ScriptedContent();
  const access = new ScriptedAccess();
  const log = new LogLines();
  const registry = new Registry();
  const endpoint = createRegistryEndpoint(
    { listen: { host: "127.0.0.1", port: 0 }, drainMs: 200, ...options },
    { content, access, logger: createLogger("debug", log), metrics: createHttpMetrics(registry) },
  );
  await endpoint.start(new AbortController().signal);
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => (closing ??= endpoint.close());
  t.teardown(close);
  const metric = async (name: string, labels: Record<string, string> = {}): Promise<number> => {
    const found = (await registry.getMetricsAsJSON()).find((one) => one.name === name);
    const values = found?.values ?? [];
    return values
      .filter((one) => Object.entries(labels).every(([key, value]) => String(one.labels[key]) === value))
      .reduce((sum, one) => sum + one.value, 0);
  };
  return {
    content,
    access,
    log,
    registry,
    endpoint,
    close,
    metric,
    url: endpoint.url,
    port: endpoint.address.port,
  };
}
