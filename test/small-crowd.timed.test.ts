/** Mirrors as processes that want the same images in the same moment: small objects cross the uplink once. */
import t, { type Test } from "tap";
import { blobsOf, makeMultiArch, manifestsOf, pushImage, type Content } from "./rig/images.ts";
import { startMirror, writeClusterSecret, type Mirror } from "./rig/mirror.ts";
import { startOciRegistry, type OciRegistry } from "./rig/oci-registry.ts";
import { pullImage } from "./rig/pull.ts";
import { until } from "./rig/until.ts";

const REGISTRY = "registry.example.test";
const REPOSITORY = "team/app";
const MIRRORS = 5;
const ROUNDS = 3;
/** Between the registry and everybody. */
const REGISTRY_MS = 120;

async function peersOf(mirror: Mirror): Promise<number> {
  const status = (await (await fetch(`${mirror.adminUrl}/status`)).json()) as { peers: readonly unknown[] };
  return status.peers.length;
}

async function mirrors(t: Test, registry: OciRegistry): Promise<Mirror[]> {
  const secret = await writeClusterSecret(`${t.testdir()}/secret`);
  const all: Mirror[] = [];
  for (let n = 0; n < MIRRORS; n += 1) {
    const mirror = await startMirror({
      name: `mirror-${n + 1}`,
      secretFiles: [secret],
      upstreams: { [REGISTRY]: registry.url },
      bootstrap: all.slice(0, 1).map((first) => first.p2pAddress),
    });
    t.teardown(() => mirror.close());
    all.push(mirror);
  }
  await until("all mirrors know each other", async () => {
    const peers = await Promise.all(all.map(peersOf));
    return peers.every((count) => count === MIRRORS - 1);
  });
  return all;
}

async function image(registry: OciRegistry, seed: string): Promise<Content> {
  const made = makeMultiArch({ seed, layers: [900_000, 20_000], compression: "none" });
  await pushImage(made, { registry: registry.url, repository: REPOSITORY, tags: [seed] });
  return made;
}

const objectsOf = (content: Content): number => manifestsOf(content).length + blobsOf(content).length;

/** Objects that were asked for by digest, as often as they were. */
const asked = (registry: OciRegistry): string[] =>
  registry.requests
    .filter(({ method, path }) => method === "GET" && /\/(manifests|blobs)\/sha256:/.test(path))
    .map(({ path }) => path.replace(/\?.*/, ""));

/** All pull at once. Milliseconds until each has the image. */
async function pullAll(all: readonly Mirror[], content: Content, reference: string): Promise<number[]> {
  return Promise.all(
    all.map(async ({ url }) => {
      const began = performance.now();
      await pullImage(content, { url, registry: REGISTRY, repository: REPOSITORY, reference });
      return performance.now() - began;
    }),
  );
}

await t.test("five mirrors at once ask the registry for each manifest and small blob once", async (t) => {
  const registry = await startOciRegistry();
  t.teardown(() => registry.close());
  const images = await Promise.all(Array.from({ length: ROUNDS }, (_, nth) => image(registry, `v${nth}`)));
  const all = await mirrors(t, registry);
  registry.faults.add({ delayMs: REGISTRY_MS });
  const took: number[] = [];
  let requests = 0;
  let objects = 0;
  const cpu = async (): Promise<number> => {
    const scrapes = await Promise.all(all.map((mirror) => mirror.metrics()));
    return scrapes.reduce((sum, scrape) => sum + scrape.sum("process_cpu_seconds_total"), 0);
  };
  const before = await cpu();
  for (const [nth, content] of images.entries()) {
    registry.forget();
    const each = await pullAll(all, content, `v${nth}`);
    took.push(...each);
    requests += asked(registry).length;
    objects += objectsOf(content);
    t.comment(`image ${nth}: ${asked(registry).length} requests, ${each.map(Math.round).join(", ")} ms`);
  }
  took.sort((a, b) => a - b);
  t.comment(`CPU of all mirrors for an image: ${(((await cpu()) - before) / ROUNDS).toFixed(2)} s`);
  t.comment(`median ${took[took.length >> 1]?.toFixed(0)} ms, most ${took.at(-1)?.toFixed(0)} ms`);
  // A busy machine may hold a process up for so long that others help themselves.
  t.ok(requests <= 2 * objects, `${requests} requests for ${objects} objects`);
});

await t.test("one of five is killed while they pull: the others have all, soon", async (t) => {
  const registry = await startOciRegistry();
  t.teardown(() => registry.close());
  const content = await image(registry, "v1");
  const [victim, ...others] = await mirrors(t, registry);
  if (victim === undefined) throw new TypeError("five");
  registry.faults.add({ delayMs: REGISTRY_MS });
  const doomed = pullAll([victim], content, "v1").catch(() => undefined);
  const began = performance.now();
  const pulls = pullAll(others, content, "v1");
  await until("the first object is asked for", () => asked(registry).length > 0);
  await victim.kill();
  await pulls;
  await doomed;
  const seconds = (performance.now() - began) / 1_000;
  t.comment(`${seconds.toFixed(1)} s, ${asked(registry).length} requests`);
  t.ok(asked(registry).length <= 2 * objectsOf(content));
});
