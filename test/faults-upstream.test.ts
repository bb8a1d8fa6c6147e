/** Upstream is busy, broken or gone, clients leave in the middle, and the mirror itself ends while somebody reads. */
import { once } from "node:events";
import { request, type IncomingMessage } from "node:http";
import t, { type Test } from "tap";
import { advertises, MIB, received, seconds, start } from "./faults-support.ts";
import { startContainerd } from "./rig/containerd.ts";
import { createCri } from "./rig/cri.ts";
import { writeHosts } from "./rig/hosts.ts";
import { blobsOf, makeImage, manifestsOf, pushImage, type Content } from "./rig/images.ts";
import { startMirror, type Mirror } from "./rig/mirror.ts";
import { need } from "./rig/need.ts";
import { startOciRegistry, type OciRegistry, type RequestKind } from "./rig/oci-registry.ts";
import { pullImage, type Pulled } from "./rig/pull.ts";
import { startShapedLink, type ShapedLink } from "./rig/shaped-link.ts";
import { until } from "./rig/until.ts";

const REGISTRY = "reg.example.test";

interface Pushed {
  readonly content: Content;
  readonly repository: string;
  readonly layer: string;
}

let images = 0;

async function push(upstream: OciRegistry, layer = 2 * MIB): Promise<Pushed> {
  const repository = `upstream/${++images}`;
  const content = makeImage({ seed: `${process.pid} ${repository}`, layers: [1000, layer] });
  await pushImage(content, { registry: upstream.url, repository, tags: ["v1"] });
  upstream.forget();
  const [largest] = blobsOf(content).toSorted((a, b) => b.descriptor.size - a.descriptor.size);
  return { content, repository, layer: largest?.descriptor.digest ?? "" };
}

const pullFrom = (
  mirror: Mirror,
  { content, repository }: Pushed,
  options: { signal?: AbortSignal; onBytes?: (digest: string, bytes: number) => void } = {},
): Promise<Pulled> =>
  pullImage(content, { url: mirror.url, registry: REGISTRY, repository, reference: "v1", ...options });

async function registry(t: Test): Promise<OciRegistry> {
  const upstream = await startOciRegistry();
  t.teardown(() => upstream.close());
  return upstream;
}

async function run(t: Test, upstream: string, bootstrap: readonly Mirror[] = []): Promise<Mirror> {
  const mirror = await startMirror({
    name: `mirror-${bootstrap.length + 1}`,
    upstreams: { [REGISTRY]: upstream },
    bootstrap: bootstrap.map((one) => one.p2pAddress),
  });
  t.teardown(() => mirror.close());
  return mirror;
}

async function slowly(t: Test, upstream: OciRegistry, bytesPerSecond: number): Promise<ShapedLink> {
  const { hostname: host, port } = new URL(upstream.url);
  const link = await startShapedLink({ target: { host, port: Number(port) }, downRate: bytesPerSecond });
  t.teardown(() => link.close());
  return link;
}

await t.test(
  "upstream says 429 with Retry-After to a tag, a manifest, a blob: each waits, and succeeds",
  async (t) => {
    const upstream = await registry(t);
    const mirror = await run(t, upstream.url);
    const cases: readonly {
      what: string;
      /** Seconds. */
      wait: number;
      kind: RequestKind;
      method: string;
      path: (image: Pushed) => string;
    }[] = [
      { what: "tag", wait: 2, kind: "manifest", method: "HEAD", path: () => "/v1" },
      { what: "manifest", wait: 1, kind: "manifest", method: "GET", path: () => "/manifests/sha256:" },
      { what: "blob", wait: 2, kind: "blob", method: "GET", path: ({ layer }) => layer },
    ];
    for (const { what, wait, kind, method, path } of cases) {
      // A little less, for clocks that tick differently.
      const waitMs = wait * 1000 - 100;
      const image = await push(upstream);
      upstream.faults.set([
        {
          match: { kind, method, path: path(image) },
          times: 1,
          status: 429,
          retryAfter: String(wait),
          errorCode: "TOOMANYREQUESTS",
        },
      ]);
      const began = performance.now();
      await pullFrom(mirror, image);
      const took = performance.now() - began;
      t.comment(`${what}: ${seconds(began)}`);
      t.ok(
        upstream.requests.some((one) => one.status === 429),
        "upstream said so",
      );
      t.ok(took >= waitMs && took < waitMs + 6_000, `${what}: after the time upstream asked for`);
      const early = upstream.requests.filter((one, at) => {
        const limited = upstream.requests.findIndex(({ status }) => status === 429);
        return at > limited && one.at < (upstream.requests[limited]?.at ?? 0) + waitMs;
      });
      t.same(
        early.map((one) => one.path),
        [],
        "nothing was asked meanwhile",
      );
    }
  },
);

await t.test("upstream fails once with 500: the client notices nothing", async (t) => {
  const upstream = await registry(t);
  const mirror = await run(t, upstream.url);
  for (const kind of ["manifest", "blob"] as const) {
    for (const method of ["HEAD", "GET"]) {
      if (kind === "blob" && method === "HEAD") continue;
      const image = await push(upstream);
      upstream.faults.set([{ match: { kind, method }, times: 1, status: 500 }]);
      const began = performance.now();
      await pullFrom(mirror, image);
      t.ok(
        upstream.requests.some((one) => one.status === 500),
        "it did fail",
      );
      t.comment(`${method} ${kind}: ${seconds(began)}`);
    }
  }
});

await t.test(
  "containerd-1.7: upstream is gone and nobody has it: a fast 404, and the error is containerd's own",
  async (t) => {
    const components = await need(t, { root: true, components: ["containerd-1.7"] });
    if (components === undefined) return;
    const upstream = await registry(t);
    const mirror = await run(t, upstream.url);
    const image = await push(upstream);
    const [manifest] = manifestsOf(image.content);
    await using containerd = await startContainerd({ component: components("containerd-1.7") });
    await using cri = createCri(containerd.socket);
    await writeHosts(containerd.certsDir, REGISTRY, { server: upstream.url, mirrors: [mirror.url] });
    await upstream.kill();
    for (const what of ["manifests/v1", `manifests/${manifest?.descriptor.digest}`, `blobs/${image.layer}`]) {
      const began = performance.now();
      const answer = await fetch(`${mirror.url}/v2/${image.repository}/${what}?ns=${REGISTRY}`);
      t.equal(answer.status, 404, what);
      t.match(await answer.json(), { errors: [{ code: /UNKNOWN/ }] });
      t.ok(performance.now() - began < 5_000);
      t.comment(`${what.slice(0, 20)}: 404 after ${seconds(began)}`);
    }
    const began = performance.now();
    await t.rejects(
      cri.pull(`${REGISTRY}/${image.repository}:v1`),
      { message: /connection refused/ },
      "containerd says what upstream did to it",
    );
    t.comment(`containerd's pull failed after ${seconds(began)}`);
    t.ok(performance.now() - began < 10_000);
  },
);

await t.test(
  "one of three clients that pull the same blob leaves: the others go on, by the one request",
  async (t) => {
    const upstream = await registry(t);
    const link = await slowly(t, upstream, 10 * MIB);
    const mirror = await run(t, `http://${link.host}:${link.port}`);
    const image = await push(upstream, 12 * MIB);
    const leaving = new AbortController();
    let got = 0;
    const pulls = [1, 2, 3].map((n) =>
      start(
        pullFrom(mirror, image, {
          ...(n === 1 ? { signal: leaving.signal } : {}),
          onBytes: (digest, bytes) => {
            if (n === 1 && digest === image.layer) got += bytes;
          },
        }),
      ),
    );
    await until("the first one is in the middle", () => got > 2 * MIB);
    leaving.abort();
    const [left, ...others] = pulls;
    await t.rejects(async () => left?.result, { name: "AbortError" });
    await Promise.all(others.map(({ result }) => result));
    for (const { descriptor } of blobsOf(image.content)) {
      const asked = upstream.requests.filter(
        (one) => one.method === "GET" && one.path.includes(descriptor.digest),
      );
      t.equal(asked.length, 1, `one request for ${descriptor.size} bytes`);
    }
    t.equal(await received(mirror, "upstream"), sizeOf(image), "no byte came twice");
  },
);

await t.test("SIGTERM while a slow client reads: records withdrawn, FIN within ten seconds", async (t) => {
  const upstream = await registry(t);
  const other = await run(t, upstream.url);
  const mirror = await run(t, upstream.url, [other]);
  const image = await push(upstream, 30 * MIB);
  await pullFrom(mirror, image);
  await advertises(mirror, blobsOf(image.content).length + 1);
  const objects = blobsOf(image.content).length + manifestsOf(image.content).length;
  // What it says of the tag and the repository goes at the very end.
  const claims = 2;
  await until("the other one has its records", async () => (await held(other)) === objects + claims);
  const body = await open(mirror, image);
  await once(body, "readable");
  const began = performance.now();
  const stopping = start(mirror.stop());
  await until("its blobs are withdrawn", async () => (await held(other)) <= claims);
  t.comment(`withdrawn after ${seconds(began)}`);
  t.ok(performance.now() - began < 4_000, "at once, not after the drain");
  upstream.forget();
  await pullFrom(other, image);
  t.equal(await received(other, "peer"), 0, "nobody is sent to a mirror that ends");
  t.equal(stopping.ended, undefined, "which still serves its reader");
  const ended = await stopping.result;
  t.comment(`ended after ${seconds(began)}`);
  t.same(ended, { code: 0, signal: null });
  t.ok(performance.now() - began < 12_500);
  // What was on its way arrives although the client was not reading, and then a FIN: a reset would fail containerd's pull.
  const bytes = await readToFin(body);
  t.ok(bytes > 0 && bytes < 30 * MIB, `${bytes} bytes arrived`);
});

await t.test("a second SIGTERM ends the mirror at once", async (t) => {
  const upstream = await registry(t);
  const mirror = await run(t, upstream.url);
  const image = await push(upstream, 30 * MIB);
  await pullFrom(mirror, image);
  const body = await open(mirror, image);
  await once(body, "readable");
  const began = performance.now();
  const stopping = start(mirror.stop());
  await until("it drains", () => mirror.log().includes("closing; a second signal forces the end"));
  mirror.signal("SIGTERM");
  const ended = await stopping.result;
  t.comment(`ended after ${seconds(began)}`);
  t.same(ended, { code: 1, signal: null });
  t.ok(performance.now() - began < 3_000);
  body.on("error", () => undefined).destroy();
});

async function held(mirror: Mirror): Promise<number> {
  return (await mirror.metrics()).sum("p2p_mirror_dht_records_held");
}

function sizeOf({ content }: Pushed): number {
  return [...blobsOf(content), ...manifestsOf(content)].reduce((sum, one) => sum + one.descriptor.size, 0);
}

/** The answer to a request for the layer, of which nothing is read yet. */
async function open(mirror: Mirror, { repository, layer }: Pushed): Promise<IncomingMessage> {
  const asking = request(`${mirror.url}/v2/${repository}/blobs/${layer}?ns=${REGISTRY}`, { agent: false });
  asking.on("error", () => undefined).end();
  const [answer]: IncomingMessage[] = await once(asking, "response");
  if (answer?.statusCode !== 200) throw new Error(`the mirror answered ${answer?.statusCode}`);
  return answer;
}

/** Reads what there is; rejects when the connection ends by a reset. */
async function readToFin(body: IncomingMessage): Promise<number> {
  let bytes = 0;
  // The answer itself only says that it is short of its Content-Length.
  body.on("error", () => undefined).on("data", (chunk: Buffer) => (bytes += chunk.length));
  await once(body.socket, "end");
  return bytes;
}
