import { buffer } from "node:stream/consumers";
import { Registry } from "prom-client";
import { createLogger, type ByteRange, type Digest } from "@p2p-mirror/shared";
import type { ContentEvent, StoredBlob } from "../../../src/store/content-store.ts";
import {
  createContainerdStore,
  type ContainerdStore,
  type ContainerdStoreOptions,
} from "../../../src/store/containerd/containerd-store.ts";
import { createContainerdMetrics } from "../../../src/store/containerd/metrics.ts";

export interface TestStore extends AsyncDisposable {
  readonly store: ContainerdStore;
  readonly events: ContentEvent[];
  /** JSON lines of level info and above. */
  readonly log: string[];
  metric(name: string): Promise<number>;
  /** How often it was told that containerd is back. */
  returns(): number;
}

/**
 * A started store over gRPC only. Short times, but not those of the calls: a busy machine may take seconds for one, and
 * who tests a containerd that hangs says how long that is.
 */
export async function startStore(
  options: { socket: string } & Partial<ContainerdStoreOptions>,
): Promise<TestStore> {
  const registry = new Registry();
  const log: string[] = [];
  let returns = 0;
  const store = createContainerdStore(
    {
      namespace: "k8s.io",
      contentDir: "none",
      timeoutMs: 5_000,
      reconcileIntervalMs: 3_600_000,
      settleMs: 20,
      backoffMs: { first: 10, most: 50 },
      ...options,
    },
    {
      logger: createLogger("info", { write: (line) => void log.push(line) }),
      metrics: createContainerdMetrics(registry),
      onReturn: () => (returns += 1),
    },
  );
  const events: ContentEvent[] = [];
  store.watch((event) => events.push(event));
  await store.start(new AbortController().signal);
  return {
    store,
    events,
    log,
    returns: () => returns,
    metric: async (name) => (await registry.getSingleMetric(name)?.get())?.values[0]?.value ?? 0,
    [Symbol.asyncDispose]: () => store.close(),
  };
}

export async function readAll(
  store: ContainerdStore,
  digest: Digest,
  range: ByteRange,
): Promise<Buffer | undefined> {
  const body = await store.read(digest, range);
  return body === undefined ? undefined : buffer(body);
}

export const kinds = (events: readonly ContentEvent[]): string[] => events.map(({ kind }) => kind);

export async function listAll(store: ContainerdStore): Promise<StoredBlob[]> {
  const blobs: StoredBlob[] = [];
  for await (const blob of store.list()) blobs.push(blob);
  return blobs;
}
