/** The clients people use, through the mirror: by path form and with `ns`, whole images, every byte compared. */
import { readFile } from "node:fs/promises";
import path from "node:path";
import t, { type Test } from "tap";
import { copyImage, differencesOf, readLayoutBy } from "./rig/clients.ts";
import type { Components } from "./rig/need.ts";
import { runConformance } from "./rig/conformance.ts";
import { startDockerRegistry } from "./rig/docker-registry.ts";
import {
  blobsOf,
  makeArtifact,
  makeImage,
  makeIndex,
  makeMultiArch,
  manifestsOf,
  pushImage,
  type Content,
} from "./rig/images.ts";
import { startMirror, type Mirror } from "./rig/mirror.ts";
import { need } from "./rig/need.ts";
import { pullImage } from "./rig/pull.ts";
import { startRecorder } from "./rig/recorder.ts";
import { until } from "./rig/until.ts";

const REGISTRY = "reg.example.test";

async function mirrorOf(t: Test, components: Components): Promise<{ upstream: string; mirror: Mirror }> {
  const registry = await startDockerRegistry({ component: components("docker-registry") });
  t.teardown(() => registry.close());
  const mirror = await startMirror({ upstreams: { [REGISTRY]: registry.url } });
  t.teardown(() => mirror.close());
  return { upstream: registry.url, mirror };
}

await t.test("skopeo, oras and crane copy whole multi-arch images", async (t) => {
  const components = await need(t, { components: ["docker-registry", "skopeo", "oras", "crane"] });
  if (components === undefined) return;
  const { upstream, mirror } = await mirrorOf(t, components);
  await using withNs = await startRecorder({ target: mirror.url, ns: REGISTRY });
  const layers = [10_000, 2_000_000];
  const images: Record<string, Content> = {
    oci: makeMultiArch({ seed: "through", layers, compression: "gzip" }),
    zstd: makeMultiArch({ seed: "through zstd", layers, compression: "zstd" }),
    docker: makeMultiArch({ seed: "through", layers, docker: true, compression: "gzip" }),
    nested: makeIndex([makeMultiArch({ seed: "inner through" }), makeImage({ seed: "outer through" })]),
    artifact: makeArtifact({ seed: "through", artifactType: "application/vnd.example+json" }),
  };
  const ways = [
    { way: "path form", registry: new URL(mirror.url).host, prefix: `${REGISTRY}/` },
    { way: "ns", registry: new URL(withNs.url).host, prefix: "" },
  ];
  for (const [repository, image] of Object.entries(images)) {
    await pushImage(image, { registry: upstream, repository, tags: ["v1"] });
    // skopeo cannot copy an index of indexes from anywhere.
    const clients = ["oras", "crane", "skopeo"].filter((one) => one !== "skopeo" || repository !== "nested");
    for (const { way, registry, prefix } of ways) {
      for (const name of clients) {
        const client = components(name as "oras");
        const layout = path.join(t.testdir(), `${repository}-${name}-${prefix === "" ? "ns" : "path"}`);
        await copyImage({ client, registry, repository: prefix + repository, reference: "v1", layout });
        t.same(await differencesOf(image, layout), [], `${repository} by ${name}, ${way}`);
      }
    }
  }
});

await t.test(
  "the cache is an image layout that skopeo, oras and crane read, while it is in use",
  async (t) => {
    const components = await need(t, { components: ["docker-registry", "skopeo", "oras", "crane"] });
    if (components === undefined) return;
    const { upstream, mirror } = await mirrorOf(t, components);
    const cache = path.join(mirror.dataDir, "cache");
    const layers = [10_000, 2_000_000];
    const images: Record<string, Content> = {
      "team/index": makeMultiArch({ seed: "held", layers, compression: "gzip" }),
      "team/zstd": makeImage({ seed: "held zstd", layers, compression: "zstd" }),
    };
    for (const [repository, image] of Object.entries(images)) {
      await pushImage(image, { registry: upstream, repository, tags: ["v1"] });
      await pullImage(image, { url: mirror.url, registry: REGISTRY, repository, reference: "v1" });
    }
    await until("index.json names both", async () => {
      const index = await readFile(path.join(cache, "index.json"), "utf8");
      return Object.keys(images).every((repository) => index.includes(`${REGISTRY}/${repository}:v1`));
    });
    for (const [repository, image] of Object.entries(images)) {
      const { digest } = image.descriptor;
      for (const name of ["skopeo", "oras", "crane"] as const) {
        const to = path.join(t.testdir(), `${repository.replace("/", "-")}-${name}`);
        const registry = new URL(upstream).host;
        await readLayoutBy({
          client: components(name),
          layout: cache,
          name: `${REGISTRY}/${repository}:v1`,
          digest,
          to,
          registry,
        });
        t.same(await differencesOf(image, to), [], `${repository} by ${name}`);
      }
    }
  },
);

await t.test("the OCI distribution conformance suite's pull tests pass", async (t) => {
  const components = await need(t, { components: ["docker-registry", "oci-conformance"] });
  if (components === undefined) return;
  const { upstream, mirror } = await mirrorOf(t, components);
  const image = makeMultiArch({ seed: "conformance through" });
  await pushImage(image, { registry: upstream, repository: "team/app", tags: ["v1"] });
  const cases = await runConformance({
    component: components("oci-conformance"),
    registry: new URL(mirror.url).host,
    repository: `${REGISTRY}/team/app`,
    tags: ["v1"],
    manifests: manifestsOf(image).map((manifest) => manifest.descriptor.digest),
    blobs: blobsOf(image).map((blob) => blob.descriptor.digest),
  });
  t.same(
    cases.filter(({ result }) => result === "failed").map(({ name }) => name),
    [],
  );
  const passed = cases.filter(({ result }) => result === "passed");
  t.ok(passed.length >= 10, `${passed.length} passed: ${passed.map(({ name }) => name).join(", ")}`);
});
