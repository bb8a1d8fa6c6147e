import { buffer } from "node:stream/consumers";
import { BlockPool, digestOf, RateLimit, silentLogger } from "@p2p-mirror/shared";
import { Registry } from "prom-client";
import t, { type Test } from "tap";
import type { OciRegistry } from "../../../../test/rig/oci-registry.ts";
import { createUpstreamMetrics } from "../../src/upstream/metrics.ts";
import { createUpstream, type UpstreamService } from "../../src/upstream/registry-client.ts";
import { NAME, setup } from "./rig.ts";

const MIB = 1024 * 1024;
const RATE = 8 * MIB;
const SIZE = 6 * MIB;

function limited(t: Test, registry: OciRegistry, limit: RateLimit, idleMs: number): UpstreamService {
  const upstream = createUpstream(
    { registries: new Map([[NAME, { url: registry.url }]]), timeouts: { idleMs } },
    {
      logger: silentLogger(),
      metrics: createUpstreamMetrics(new Registry()),
      blocks: new BlockPool({ partBytes: limit.quantum }),
      limit,
    },
  );
  t.teardown(() => upstream.close());
  return upstream;
}

await t.test(
  "all that comes from registries is within the limit; layers share it, manifests pass",
  async (t) => {
    const { registry, repository, image } = await setup(t, { layerSizes: [SIZE, SIZE + 1, SIZE + 2] });
    const limit = new RateLimit(RATE);
    const upstream = limited(t, registry, limit, 30_000);
    const started = performance.now();
    const passed = (): number => (performance.now() - started) / 1000;
    const layers = image.layers.map(async ({ digest, size }) => {
      const { body } = await upstream.blob(repository, digest, undefined);
      t.equal(digestOf(await buffer(body)), digest, `${size} bytes arrive`);
      return passed();
    });
    const manifest = await upstream.manifest(repository, image.digest);
    t.equal(manifest.descriptor.digest, image.digest);
    const manifestAfter = passed();
    const seconds = await Promise.all(layers);
    const last = Math.max(...seconds);
    const rate = (3 * SIZE) / last;
    t.ok(rate <= RATE * 1.15 && rate >= RATE * 0.25, `${rate} bytes per second`);
    t.ok(Math.min(...seconds) > last * 0.6, `they end together, at ${seconds.join(", ")}`);
    t.ok(manifestAfter < last / 2, `the manifest was there after ${manifestAfter} s`);
  },
);

await t.test("a layer that waits for its turn is not taken for a registry that is stuck", async (t) => {
  const layerSizes = Array.from({ length: 60 }, (_, nth) => 64 * 1024 + nth);
  const { registry, repository, image } = await setup(t, { layerSizes });
  const limit = new RateLimit(512 * 1024);
  const upstream = limited(t, registry, limit, 500);
  let longestRound = 0;
  await Promise.all(
    image.layers.map(async ({ digest }) => {
      const { body } = await upstream.blob(repository, digest, undefined);
      body.on("data", () => (longestRound = Math.max(longestRound, limit.roundMs)));
      t.equal(digestOf(await buffer(body)), digest);
    }),
  );
  // undici looks at its deadlines twice a second.
  t.ok(longestRound > 1_200, `turns were ${longestRound} ms apart`);
});
