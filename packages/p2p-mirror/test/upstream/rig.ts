import { readFile, writeFile } from "node:fs/promises";
import { BlockPool, silentLogger, type Repository } from "@p2p-mirror/shared";
import { Registry } from "prom-client";
import type { Test } from "tap";
import {
  buildImage,
  startOciRegistry,
  type BuiltImage,
  type OciRegistry,
  type OciRegistryOptions,
} from "../../../../test/rig/oci-registry.ts";
import { until } from "../../../../test/rig/until.ts";
import { createUpstreamMetrics } from "../../src/upstream/metrics.ts";
import {
  createUpstream,
  type CreateUpstreamOptions,
  type UpstreamService,
} from "../../src/upstream/registry-client.ts";
import type { RegistryConfig } from "../../src/upstream/registry-config.ts";

/** The name the registry has for the mirror; where it really is stands in its configuration. */
export const NAME = "registry.test";

export interface Setup {
  readonly registry: OciRegistry;
  readonly upstream: UpstreamService;
  readonly image: BuiltImage;
  readonly repository: Repository;
  readonly prom: Registry;
  /** The value of a metric, all labels given. */
  readonly metric: (name: string, labels: Readonly<Record<string, string>>) => Promise<number>;
}

export interface SetupOptions {
  readonly registry?: OciRegistryOptions;
  readonly config?: RegistryConfig;
  readonly upstream?: Partial<CreateUpstreamOptions>;
  readonly platforms?: readonly string[];
  readonly layerSizes?: readonly number[];
}

/** So much time goes by, for what depends on nothing else: a reader's pause, a life that ends. */
export const passed = async (ms: number): Promise<void> => {
  const end = performance.now() + ms;
  await until(`${ms} ms`, () => performance.now() >= end, { timeoutMs: ms + 15_000 });
};

/** Deadlines a test can wait for. */
export const SHORT = { connectMs: 2000, firstByteMs: 2000, idleMs: 1000 } as const;

/** A registry with an image in it and a client for it; both end with the test. */
export async function setup(t: Test, options: SetupOptions = {}): Promise<Setup> {
  const registry = await startOciRegistry(options.registry);
  t.teardown(() => registry.close());
  const image = buildImage({
    repository: "team/app",
    tag: "v1",
    seed: t.name,
    layerSizes: options.layerSizes ?? [300_000, 100],
    ...(options.platforms === undefined ? {} : { platforms: options.platforms }),
  });
  registry.push(image);
  const logins = options.upstream?.dockerConfigFile;
  if (logins !== undefined) await nameTheHost(logins, new URL(registry.url).host);
  const { upstream, prom } = clientOf(
    t,
    { [NAME]: { url: registry.url, ...options.config } },
    options.upstream,
  );
  return {
    registry,
    upstream,
    image,
    repository: { registry: NAME, repository: "team/app" },
    prom,
    metric: (name, labels) => valueOf(prom, name, labels),
  };
}

/** Logins count for the host that is really asked; where that is, is known only now. */
async function nameTheHost(file: string, host: string): Promise<void> {
  const text = await readFile(file, "utf8").catch(() => undefined);
  if (text !== undefined) await writeFile(file, text.replaceAll(/registry\.test|127\.0\.0\.1:\d+/g, host));
}

/** A client by itself, for tests with a registry of another kind. */
export function clientOf(
  t: Test,
  registries: Readonly<Record<string, RegistryConfig>>,
  options: Partial<CreateUpstreamOptions> = {},
): { upstream: UpstreamService; prom: Registry } {
  const prom = new Registry();
  const upstream = createUpstream(
    {
      registries: new Map(Object.entries(registries)),
      timeouts: SHORT,
      retry: { delayMs: 5 },
      ...options,
    },
    { logger: silentLogger(), metrics: createUpstreamMetrics(prom), blocks: new BlockPool() },
  );
  t.teardown(() => upstream.close());
  return { upstream, prom };
}

export async function valueOf(
  prom: Registry,
  name: string,
  labels: Readonly<Record<string, string>>,
): Promise<number> {
  const metric = await prom.getSingleMetric(name)?.get();
  const found = metric?.values.find((value) =>
    Object.entries(labels).every(([key, wanted]) => String(value.labels[key]) === wanted),
  );
  return found?.value ?? 0;
}
