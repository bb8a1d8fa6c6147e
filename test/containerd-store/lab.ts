import { randomBytes } from "node:crypto";
import path from "node:path";
import { buffer } from "node:stream/consumers";
import { Registry } from "prom-client";
import {
  digestOf,
  hexOf,
  silentLogger,
  type ByteRange,
  type Digest,
  type Repository,
} from "@p2p-mirror/shared";
import type { ContentEvent } from "../../packages/p2p-mirror/src/store/content-store.ts";
import {
  createContainerdStore,
  type ContainerdStore,
  type ContainerdStoreOptions,
} from "../../packages/p2p-mirror/src/store/containerd/containerd-store.ts";
import { createContainerdMetrics } from "../../packages/p2p-mirror/src/store/containerd/metrics.ts";
import type { Component } from "../rig/components.ts";
import { startContainerd, type Containerd } from "../rig/containerd.ts";
import type { ContainerdSettings } from "../rig/containerd-config.ts";
import { createCri, type Cri } from "../rig/cri.ts";
import { writeHosts } from "../rig/hosts.ts";
import { exec } from "../rig/exec.ts";
import { blobsOf, pushImage, type Content } from "../rig/images.ts";
import { until } from "../rig/until.ts";
import { startOciRegistry, type OciRegistry } from "../rig/oci-registry.ts";

export const REGISTRY = "reg.example.test";

/** A real containerd with a registry that it pulls from, and any number of stores in front of it. */
export interface Lab extends AsyncDisposable {
  readonly containerd: Containerd;
  readonly cri: Cri;
  /** Path of the ctr that belongs to it. */
  readonly ctr: string;
  /** Pushes an image to the registry and gives its reference. */
  push(content: Content, repository: string): Promise<string>;
  /** `host:port` of the registry itself, for image names that go there without hosts.toml. */
  readonly registryHost: string;
  /** A started store with what it told. Closed with the lab. */
  store(options?: Partial<ContainerdStoreOptions>): Promise<Watched>;
  /** A blob without any image around it, kept from garbage collection. */
  ingest(bytes: Uint8Array, namespace?: string): Promise<Digest>;
}

export interface Watched {
  readonly store: ContainerdStore;
  readonly events: ContentEvent[];
  readonly metrics: Registry;
  /** The value of one metric, labels as prom-client writes them. */
  metric(name: string, labels?: Readonly<Record<string, string>>): Promise<number>;
  close(): Promise<void>;
}

export async function createLab(component: Component, settings: ContainerdSettings = {}): Promise<Lab> {
  await using stack = new AsyncDisposableStack();
  const registry: OciRegistry = await startOciRegistry();
  stack.defer(() => registry.close());
  const containerd = await startContainerd({ component, ...settings });
  stack.use(containerd);
  const cri = createCri(containerd.socket);
  stack.defer(() => cri.close());
  await writeHosts(containerd.certsDir, REGISTRY, { server: registry.url, mirrors: [] });

  const store = async (options: Partial<ContainerdStoreOptions> = {}): Promise<Watched> => {
    const metrics = new Registry();
    const made = createContainerdStore(
      { socket: containerd.socket, namespace: "k8s.io", ...options },
      { logger: silentLogger(), metrics: createContainerdMetrics(metrics) },
    );
    const events: ContentEvent[] = [];
    made.watch((event) => events.push(event));
    let closing: Promise<void> | undefined;
    const close = (): Promise<void> => (closing ??= made.close());
    own.defer(close);
    await made.start(new AbortController().signal);
    const metric = async (name: string, labels: Readonly<Record<string, string>> = {}): Promise<number> => {
      const found = await metrics.getSingleMetric(name)?.get();
      const wanted = Object.entries(labels);
      const value = found?.values.find((one) => wanted.every(([key, text]) => one.labels[key] === text));
      return value?.value ?? 0;
    };
    return { store: made, events, metrics, metric, close };
  };

  const own = stack.move();
  return {
    containerd,
    cri,
    registryHost: registry.host,
    ctr: component.bin("ctr"),
    store,
    async push(content, repository) {
      await pushImage(content, { registry: registry.url, repository, tags: ["v1"] });
      return `${REGISTRY}/${repository}:v1`;
    },
    async ingest(bytes, namespace = "k8s.io") {
      const digest = digestOf(bytes);
      const ctr = [component.bin("ctr"), "--address", containerd.socket, "--namespace", namespace];
      // Between the two commands nothing protects the blob: a garbage collection that runs just then takes it.
      await until("ingested and kept", async () => {
        const ref = `test-${randomBytes(8).toString("hex")}`;
        await exec([...ctr, "content", "ingest", "--expected-digest", digest, ref], { input: bytes });
        await exec([...ctr, "content", "label", digest, "containerd.io/gc.root=test"]);
        return true;
      });
      return digest;
    },
    [Symbol.asyncDispose]: () => own.disposeAsync(),
  };
}

/** Where containerd keeps the blob. */
export const fileOf = (lab: Lab, digest: Digest): string =>
  path.join(lab.containerd.contentDir, "blobs", "sha256", hexOf(digest));

export const originOf = (repository: string): Repository => ({ registry: REGISTRY, repository });

export async function readAll(
  store: ContainerdStore,
  digest: Digest,
  range: ByteRange,
): Promise<Buffer | undefined> {
  const body = await store.read(digest, range);
  return body === undefined ? undefined : buffer(body);
}

export async function listed(store: ContainerdStore): Promise<Set<Digest>> {
  const digests = new Set<Digest>();
  for await (const blob of store.list()) digests.add(blob.digest);
  return digests;
}

/** What containerd fetches of an image: the given manifest with its index, config and layers. */
export function fetchedOf(content: Content, architecture: string): { digest: Digest; bytes: Buffer }[] {
  const own = content.manifests.find((child) => child.descriptor.platform?.architecture === architecture);
  const parts = own === undefined ? [content] : [content, own];
  return [...parts.map((part) => part.bytes), ...blobsOf(own ?? content).map((blob) => blob.bytes)].map(
    (bytes) => ({ digest: digestOf(bytes), bytes }),
  );
}
