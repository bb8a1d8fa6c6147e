/** `--limit-upstream`, `--limit-in`, `--limit-out` and `--max-upstream-fetchers` of real daemons, as a user sees them. */
import t, { type Test } from "tap";
import { isMirrorStatus } from "../packages/p2p-mirror/src/status-shape.ts";
import { makeImage, pushImage } from "./rig/images.ts";
import { startMirror, type Mirror } from "./rig/mirror.ts";
import { startOciRegistry, type OciRegistry } from "./rig/oci-registry.ts";
import { peersOf } from "./rig/cluster.ts";
import { pullImage } from "./rig/pull.ts";
import { until } from "./rig/until.ts";
import { untilGood } from "./rig/until-good.ts";

const MIB = 1024 * 1024;
const REGISTRY = "registry.example.test";
const REPOSITORY = "team/app";
const LAYERS = [5 * MIB, 5 * MIB, 5 * MIB];
const TOTAL = 15 * MIB;

await t.test("each limit holds, and status and metrics say so", async (t) => {
  const registry = await startOciRegistry();
  t.teardown(() => registry.close());
  const image = makeImage({ seed: "limits", layers: LAYERS });
  await pushImage(image, { registry: registry.url, repository: REPOSITORY, tags: ["v1"] });
  const upstreams = { [REGISTRY]: registry.url };
  const flags = ["--limit-upstream", "4MiB", "--limit-out", "6MiB"];
  const holder = await startMirror({ name: "holder", upstreams, flags });
  t.teardown(() => holder.close());
  const others: Mirror[] = [];
  // The second one may take from two.
  for (const [name, limits] of [
    ["one", []],
    ["other", ["--limit-in", "3MiB"]],
  ] as const) {
    const mirror = await startMirror({ name, upstreams, bootstrap: [holder.p2pAddress], flags: limits });
    t.teardown(() => mirror.close());
    others.push(mirror);
  }

  /** Bytes per second of one pull of the whole image. */
  const rateOf = async (url: string): Promise<number> => {
    const began = performance.now();
    await pullImage(image, { url, registry: REGISTRY, repository: REPOSITORY, reference: "v1" });
    return TOTAL / ((performance.now() - began) / 1000);
  };
  const pulling = rateOf(holder.url);
  pulling.catch(() => undefined);
  await until("layers wait for their turn", async () => {
    return (await holder.metrics()).sum("p2p_mirror_limit_held_bodies", { direction: "upstream" }) > 0;
  });
  const status: unknown = await (await fetch(`${holder.adminUrl}/status`)).json();
  if (!isMirrorStatus(status)) throw new TypeError(JSON.stringify(status));
  t.equal(status.limits.upstream?.bytesPerSecond, 4 * MIB);
  t.equal(status.limits.out?.bytesPerSecond, 6 * MIB);
  t.equal(status.limits.in, undefined);
  const metrics = await holder.metrics();
  t.equal(metrics.sum("p2p_mirror_limit_bytes_per_second", { direction: "upstream" }), 4 * MIB);
  const within = (rate: number, limit: number, what: string): void => {
    t.ok(rate <= limit * 1.15, `${what}: ${rate} bytes per second are too many`);
    t.ok(rate >= limit * 0.2, `${what}: ${rate} bytes per second are few`);
  };
  within(await pulling, 4 * MIB, "upstream");
  await until("the image is advertised", async () => {
    return (await holder.metrics()).sum("p2p_mirror_dht_records_advertised") >= LAYERS.length + 2;
  });
  const sent = registry.bytesSent;
  for (const [nth, mirror] of others.entries())
    within(await rateOf(mirror.url), nth === 0 ? 6 * MIB : 3 * MIB, nth === 0 ? "out" : "in");
  t.ok(registry.bytesSent - sent < MIB, "all of it came from the nodes that had it");
});

/** Longer than the others need to come, so that who is asked at the same time is seen to be. */
const ANSWER_MS = 500;

/** Of the registries, those that send the blob at the same time, at most. */
function mostAtOnce(registries: readonly OciRegistry[], digest: string): number {
  const asked = registries.map(({ requests }) =>
    requests.filter(({ method, path }) => method === "GET" && path.includes(`/blobs/${digest}`)),
  );
  const open = (now: number): number =>
    asked.filter((own) => own.some(({ at, endedAt }) => at <= now && now < endedAt)).length;
  return Math.max(...asked.flat().map(({ at }) => open(at)));
}

/** Three mirrors, each with a registry of its own, all with the same image: how many of them are asked for its layer at once. */
async function fetchersOf(t: Test, flags: readonly string[]): Promise<number> {
  await using scene = new AsyncDisposableStack();
  const image = makeImage({ seed: "fetchers", layers: [16 * MIB] });
  const [registries, mirrors]: [OciRegistry[], Mirror[]] = [[], []];
  for (let nth = 1; nth <= 3; nth += 1) {
    const registry = scene.adopt(await startOciRegistry(), (one) => one.close());
    await pushImage(image, { registry: registry.url, repository: REPOSITORY, tags: ["v1"] });
    registry.faults.add({ match: { kind: "blob" }, delayMs: ANSWER_MS });
    registries.push(registry);
    const mirror = await startMirror({
      name: `mirror-${nth}`,
      upstreams: { [REGISTRY]: registry.url },
      bootstrap: mirrors.slice(0, 1).map((first) => first.p2pAddress),
      flags,
    });
    mirrors.push(scene.use(mirror));
  }
  await until("the mirrors know each other", async () =>
    (await Promise.all(mirrors.map(peersOf))).every((count) => count === 2),
  );
  await Promise.all(
    mirrors.map(({ url }) =>
      pullImage(image, { url, registry: REGISTRY, repository: REPOSITORY, reference: "v1" }),
    ),
  );
  const layer = image.blobs.at(-1);
  if (layer === undefined) throw new TypeError("a layer");
  const most = mostAtOnce(registries, layer.descriptor.digest);
  const sent = registries.map(({ bytesSent }) => (bytesSent / MIB).toFixed(1)).join(", ");
  t.comment(`${flags.join(" ")}: ${most} at once; MiB out of each registry: ${sent}`);
  return most;
}

await t.test("no more nodes than --max-upstream-fetchers fetch parts of a blob at a time", async (t) => {
  const TRIES = 3;
  const several = await untilGood(
    TRIES,
    () => fetchersOf(t, []),
    (most) => most > 1,
  );
  t.ok(several > 1, "by default several do");
  const one = await untilGood(
    TRIES,
    () => fetchersOf(t, ["--max-upstream-fetchers", "1"]),
    (most) => most === 1,
  );
  t.equal(one, 1);
});
