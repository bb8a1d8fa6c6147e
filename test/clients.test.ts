/** The clients people use, against the reference registry: what they must also do against the mirror. */
import path from "node:path";
import t from "tap";
import { copyImage, differencesOf } from "./rig/clients.ts";
import { runConformance } from "./rig/conformance.ts";
import { startDockerRegistry } from "./rig/docker-registry.ts";
import { blobsOf, makeImage, makeIndex, makeMultiArch, manifestsOf, pushImage } from "./rig/images.ts";
import { need } from "./rig/need.ts";

await t.test("skopeo, oras and crane copy whole multi-arch images, every byte of them", async (t) => {
  const components = await need(t, { components: ["docker-registry", "skopeo", "oras", "crane"] });
  if (components === undefined) return;
  await using registry = await startDockerRegistry({ component: components("docker-registry") });
  const layers = [10_000, 2_000_000];
  const images = {
    oci: makeMultiArch({ seed: "clients", layers, compression: "gzip" }),
    docker: makeMultiArch({ seed: "clients", layers, docker: true, compression: "gzip" }),
    nested: makeIndex([makeMultiArch({ seed: "inner" }), makeImage({ seed: "outer" })]),
  };
  for (const [repository, image] of Object.entries(images)) {
    await pushImage(image, { registry: registry.url, repository, tags: ["v1"] });
    // skopeo cannot copy an index of indexes from anywhere.
    for (const name of ["oras", "crane", ...(repository === "nested" ? [] : ["skopeo" as const])] as const) {
      const layout = path.join(t.testdir(), `${repository}-${name}`);
      await copyImage({
        client: components(name),
        registry: registry.host,
        repository,
        reference: "v1",
        layout,
      });
      t.same(await differencesOf(image, layout), [], `${repository} by ${name}`);
    }
  }
});

await t.test("the conformance suite reads a registry and says which of its tests failed", async (t) => {
  const components = await need(t, { components: ["docker-registry", "oci-conformance"] });
  if (components === undefined) return;
  await using registry = await startDockerRegistry({ component: components("docker-registry") });
  const image = makeMultiArch({ seed: "conformance" });
  await pushImage(image, { registry: registry.url, repository: "team/app", tags: ["v1"] });
  const cases = await runConformance({
    component: components("oci-conformance"),
    registry: registry.host,
    repository: "team/app",
    tags: ["v1"],
    manifests: manifestsOf(image).map((manifest) => manifest.descriptor.digest),
    blobs: blobsOf(image).map((blob) => blob.descriptor.digest),
  });
  const passed = cases.filter((one) => one.result === "passed").map((one) => one.name);
  for (const name of ["read-only/tag-list", "read-only/pull/manifest-by-tag", "read-only/pull/blob-get"]) {
    t.ok(passed.includes(name), name);
  }
  // Its 500 for a digest that is none is a known fault of this registry: it shows that failures come through.
  const failed = cases.filter((one) => one.result === "failed");
  t.same(
    failed.map((one) => one.name),
    ["invalid-digest-format/manifest-get"],
  );
  t.match(failed[0]?.message, /received 500/);
});
