/** Mirrors as processes that want the same images in the same moment: small objects cross the uplink once. */
import t, { type Test } from "tap";
import { blobsOf, makeMultiArch, manifestsOf, pushImage, type Content } from "./rig/images.ts";
import { startMirror, writeClusterSecret, type Mirror } from "./rig/mirror.ts";
import { startOciRegistry, type OciRegistry } from "./rig/oci-registry.ts";
import { pullImage } from "./rig/pull.ts";
import { until } from "./rig/until.ts";
import { untilGood } from "./rig/until-good.ts";

const REGISTRY = "registry.example.test";
const REPOSITORY = "team/app";
const MIRRORS = 5;
/**
 * A busy machine may hold a process up for so long that others help themselves (at a load of 20 on two processors one object in
 * twelve is asked for more than once), and go on to be impatient for ten seconds.
 */
const TRIES = 6;
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

const isOnceEach = (times: readonly number[]): boolean => times.every((count) => count === 1);

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
  const all = await mirrors(t, registry);
  registry.faults.add({ delayMs: REGISTRY_MS });
  const took: number[] = [];
  const cpu = async (): Promise<number> => {
    const scrapes = await Promise.all(all.map((mirror) => mirror.metrics()));
    return scrapes.reduce((sum, scrape) => sum + scrape.sum("process_cpu_seconds_total"), 0);
  };
  const before = await cpu();
  let images = 0;
  const times = await untilGood(
    TRIES,
    async (nth) => {
      images += 1;
      const tag = `v${nth}`;
      const content = await image(registry, tag);
      registry.forget();
      const each = await pullAll(all, content, tag);
      took.push(...each);
      const paths = Object.groupBy(asked(registry), (path) => path);
      const counts = Object.values(paths).map((same = []) => same.length);
      t.comment(`image ${nth}: asked for ${counts.join(" ")} times, ${each.map(Math.round).join(", ")} ms`);
      t.equal(counts.length, objectsOf(content), "every object, and nothing else");
      t.ok(asked(registry).length <= 2 * counts.length, "twice at most, on the whole");
      return counts;
    },
    isOnceEach,
  );
  t.ok(isOnceEach(times), `${times.join(" ")}: each object once`);
  took.sort((a, b) => a - b);
  t.comment(`CPU of all mirrors for an image: ${(((await cpu()) - before) / images).toFixed(2)} s`);
  t.comment(`median ${took[took.length >> 1]?.toFixed(0)} ms, most ${took.at(-1)?.toFixed(0)} ms`);
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
