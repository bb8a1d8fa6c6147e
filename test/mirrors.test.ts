/** Mirrors as processes, without containerd: nodes serve each other, and go on when upstream is gone. */
import { join } from "node:path";
import t, { type Test } from "tap";
import { makeImage, makeMultiArch, pushImage } from "./rig/images.ts";
import type { Scrape } from "./rig/metrics.ts";
import { startMirror, type Mirror, type MirrorOptions } from "./rig/mirror.ts";
import { startOciRegistry, type OciRegistry } from "./rig/oci-registry.ts";
import { pullImage } from "./rig/pull.ts";
import { until } from "./rig/until.ts";

const REGISTRY = "registry.example.test";
const REPOSITORY = "team/app";
const MIB = 1024 * 1024;

async function upstream(t: Test): Promise<OciRegistry> {
  const registry = await startOciRegistry();
  t.teardown(() => registry.close());
  return registry;
}

async function mirrors(
  t: Test,
  count: number,
  registry: OciRegistry,
  options: MirrorOptions = {},
): Promise<Mirror[]> {
  const all: Mirror[] = [];
  for (let n = 0; n < count; n += 1) {
    const mirror = await startMirror({
      name: `mirror-${n + 1}`,
      upstreams: { [REGISTRY]: registry.url },
      bootstrap: all.slice(0, 1).map((first) => first.p2pAddress),
      ...options,
    });
    t.teardown(() => mirror.close());
    all.push(mirror);
  }
  await until("all mirrors know each other", async () => {
    const seen = await Promise.all(all.map(async (one) => (await status(one)).peers.length));
    return seen.every((peers) => peers === count - 1);
  });
  return all;
}

interface Status {
  readonly peers: readonly unknown[];
  readonly images: readonly { readonly reference: string; readonly size: number }[];
}

async function status(mirror: Mirror): Promise<Status> {
  const response = await fetch(`${mirror.adminUrl}/status`);
  return (await response.json()) as Status;
}

const from = async (mirror: Mirror, source: string): Promise<number> =>
  (await mirror.metrics()).sum("p2p_mirror_received_bytes_total", { source });

/** What a node that pulled from peers with upstream gone has counted, and what it would have. */
function toldByMetrics(t: Test, scrape: Scrape): void {
  const happened: [string, Record<string, string>?][] = [
    ["http_requests_total", { source: "peer" }],
    ["http_sent_bytes_total", { source: "peer" }],
    ["received_bytes_total", { source: "peer" }],
    ["http_first_byte_seconds_count", { source: "peer" }],
    ["peer_first_byte_seconds_count"],
    ["dht_lookup_seconds_count"],
    ["dht_peers"],
    ["dht_records_held"],
    ["dht_records_advertised"],
    ["stale_tag_answers_total"],
    ["upstream_errors_total", { registry: REGISTRY }],
  ];
  for (const [name, labels] of happened) t.ok(scrape.sum(`p2p_mirror_${name}`, labels) > 0, name);
  for (const [name, type] of Object.entries({
    http_first_byte_seconds: "histogram",
    dht_lookup_seconds: "histogram",
    flights: "gauge",
    upstream_breaker_trips_total: "counter",
    cache_evictions_total: "counter",
    upstream_rate_limit_remaining_requests: "gauge",
    peer_breaker_trips_total: "counter",
    refuted_peers_total: "counter",
  })) {
    t.match(scrape.text, `# TYPE p2p_mirror_${name} ${type}\n`);
  }
}

await t.test(
  "what one node holds the others get from it, and when upstream is gone, by tag, too",
  async (t) => {
    const registry = await upstream(t);
    const image = makeMultiArch({ seed: "first", layers: [3 * MIB, 100_000], compression: "gzip" });
    await pushImage(image, { registry: registry.url, repository: REPOSITORY, tags: ["v1"] });
    const [first, second, third] = await mirrors(t, 3, registry);
    if (first === undefined || second === undefined || third === undefined) throw new TypeError("three");
    const ref = { registry: REGISTRY, repository: REPOSITORY, reference: "v1" };

    const { bytes, digest } = await pullImage(image, { ...ref, url: first.url });
    t.equal(digest, image.descriptor.digest);
    t.equal(await from(first, "upstream"), bytes, "the first node fetched every byte from upstream");

    await until("the second node sees the first's records", async () => {
      const scrape = await second.metrics();
      return scrape.sum("p2p_mirror_dht_records_held") > 0;
    });
    await pullImage(image, { ...ref, url: second.url });
    t.equal(await from(second, "upstream"), 0, "the second asked upstream for no byte of content");
    t.equal(await from(second, "peer"), bytes);
    await until("all of the image is stored and counted", async () => {
      return (await status(second)).images.some(({ size }) => size === bytes);
    });

    await registry.kill();
    await pullImage(image, { ...ref, url: third.url });
    t.equal(await from(third, "peer"), bytes, "the third pulled by tag with upstream gone");
    t.equal((await third.metrics()).sum("p2p_mirror_stale_tag_answers_total"), 1, "and the answer is marked");
    await pullImage(image, { ...ref, reference: image.descriptor.digest, url: third.url });

    await until("it has told what it holds now", async () => {
      return (await third.metrics()).sum("p2p_mirror_dht_records_advertised") > 0;
    });
    toldByMetrics(t, await third.metrics());

    await third.stop();
    await third.start();
    await pullImage(image, { ...ref, url: third.url });
    t.equal(await from(third, "peer"), 0, "after a restart it serves what it kept");

    await Promise.all([first.kill(), second.kill()]);
    await pullImage(image, { ...ref, url: third.url });
    t.match((await status(third)).images, [{ reference: `${REGISTRY}/${REPOSITORY}:v1` }], "ls names it");
    const fourth = await startMirror({
      name: "mirror-4",
      upstreams: { [REGISTRY]: registry.url },
      bootstrap: [third.p2pAddress],
    });
    t.teardown(() => fourth.close());
    await until("the fourth knows the third", async () => (await status(fourth)).peers.length > 0);
    await pullImage(image, { ...ref, url: fourth.url });
    t.equal(await from(fourth, "peer"), bytes, "from one that itself pulled with upstream gone, by tag");
  },
);

await t.test("a repository that upstream does not give to anybody is declined", async (t) => {
  const registry = await startOciRegistry({ auth: { kind: "basic", users: { somebody: "secret" } } });
  t.teardown(() => registry.close());
  const image = makeImage({ seed: "private" });
  const authorization = `Basic ${Buffer.from("somebody:secret").toString("base64")}`;
  await pushImage(image, {
    registry: registry.url,
    repository: REPOSITORY,
    tags: ["v1"],
    headers: { authorization },
  });
  const [mirror] = await mirrors(t, 1, registry);
  const url = `${mirror?.url}/v2/${REPOSITORY}/manifests/v1?ns=${REGISTRY}`;
  const response = await fetch(url);
  t.equal(response.status, 404);
  t.equal(response.headers.get("www-authenticate"), null, "without a challenge: containerd goes to upstream");
});

await t.test(
  "what only this node's key opens is declined; with --access open everybody gets it",
  async (t) => {
    const registry = await startOciRegistry({ faults: [{ match: { without: "x-key" }, status: 403 }] });
    t.teardown(() => registry.close());
    const image = makeImage({ seed: "opened" });
    const headers = { "x-key": "of the node" };
    await pushImage(image, { registry: registry.url, repository: REPOSITORY, tags: ["v1"], headers });
    const config = `registries: { ${REGISTRY}: { headers: { x-key: of the node } } }\n`;
    const flags = ["--config", join(t.testdir({ "mirror.yaml": config }), "mirror.yaml")];
    const warning =
      /"level":40,[^\n]*"msg":"access is open: whatever this mirror holds[^\n]*readable by everything on this node/g;

    const [closed] = await mirrors(t, 1, registry, { access: "public", flags });
    const [open] = await mirrors(t, 1, registry, { access: "open", flags });
    if (closed === undefined || open === undefined) throw new TypeError("two");
    const response = await fetch(`${closed.url}/v2/${REPOSITORY}/manifests/v1?ns=${REGISTRY}`);
    t.equal(response.status, 404);
    t.notMatch(closed.log(), warning);
    await pullImage(image, { url: open.url, registry: REGISTRY, repository: REPOSITORY, reference: "v1" });
    t.equal(open.log().match(warning)?.length, 1, "said in one line");
  },
);
