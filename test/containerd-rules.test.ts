/**
 * The rules of the registry endpoint, seen by real containerds: a faulty mirror in front of a good upstream never costs a
 * pull, and never more than one request an object. The endpoint is the real one; what is behind it follows a script.
 */
import { mkdir, rm } from "node:fs/promises";
import path from "node:path";
import t, { type Test } from "tap";
import { AllSourcesFailedError, isDigest, SourceError, type Digest } from "@p2p-mirror/shared";
import type { RegistryEndpointOptions } from "../packages/p2p-mirror/src/http/registry-endpoint.ts";
import { startEndpoint } from "../packages/p2p-mirror/test/http/support/endpoint.ts";
import { chunked } from "../packages/p2p-mirror/test/http/support/scripted-content.ts";
import type { ComponentName } from "./rig/components.ts";
import { startContainerd, type Containerd } from "./rig/containerd.ts";
import { createCri } from "./rig/cri.ts";
import { writeHosts } from "./rig/hosts.ts";
import { blobsOf, makeImage, manifestsOf, pushImage, type Content } from "./rig/images.ts";
import { need } from "./rig/need.ts";
import { startOciRegistry, type OciRegistry } from "./rig/oci-registry.ts";

const REGISTRY = "reg.example.test";
const MIB = 1024 * 1024;
/** Above containerd's chunk, so that chunked mode would make several requests. */
const LAYER = 12 * MIB;
const LOST_AT = 5 * MIB;

const CASES: readonly { name: ComponentName; chunkedMode?: boolean }[] = [
  { name: "containerd-1.6" },
  { name: "containerd-1.7" },
  { name: "containerd-2.1" },
  { name: "containerd-2.1", chunkedMode: true },
  { name: "containerd-2.x" },
];

type Endpoint = Awaited<ReturnType<typeof startEndpoint>>;

interface Scene {
  readonly mirror: Endpoint;
  readonly upstream: OciRegistry;
  readonly containerd: Containerd;
  readonly image: Content;
  /** The one large layer. */
  readonly layer: { readonly digest: Digest; readonly bytes: Buffer };
  /** Pulls by CRI, which unpacks; throws when the pull fails. */
  readonly pull: () => Promise<void>;
}

for (const { name, chunkedMode = false } of CASES) {
  await t.test(`${name}${chunkedMode ? " in chunked mode" : ""}`, async (t) => {
    const components = await need(t, { root: true, components: [name] });
    if (components === undefined) return;
    await using stack = new AsyncDisposableStack();
    const upstream = stack.adopt(await startOciRegistry(), (it) => it.close());
    await using containerd = await startContainerd({ component: components(name), chunked: chunkedMode });
    await using cri = createCri(containerd.socket);
    let number = 0;

    /** A fresh image at upstream and, unless told otherwise, in the mirror's content as well. */
    const scene = async (t: Test, options: Partial<RegistryEndpointOptions> = {}): Promise<Scene> => {
      const repository = `rules/${++number}`;
      const image = makeImage({ seed: `${name} ${chunkedMode} ${number}`, layers: [LAYER, 1000] });
      await pushImage(image, { registry: upstream.url, repository, tags: ["v1"] });
      upstream.forget();
      const mirror = await startEndpoint(t, options);
      await rm(path.join(containerd.certsDir, REGISTRY), { recursive: true, force: true });
      await mkdir(containerd.certsDir, { recursive: true });
      await writeHosts(containerd.certsDir, REGISTRY, { server: upstream.url, mirrors: [mirror.url] });
      for (const { descriptor, bytes } of manifestsOf(image)) {
        mirror.content.addManifest(JSON.parse(bytes.toString()), "v1", "peer");
        t.ok(mirror.content.manifests.has(digestOf(descriptor.digest)), "the script holds the true manifest");
      }
      for (const { bytes } of blobsOf(image)) mirror.content.addBlob(bytes, "peer");
      const large = blobsOf(image).find(({ descriptor }) => descriptor.size > LAYER);
      if (large === undefined) throw new TypeError("the image has a large layer");
      const layer = { digest: digestOf(large.descriptor.digest), bytes: large.bytes };
      const pull = async (): Promise<void> => {
        await cri.pull(`${REGISTRY}/${repository}:v1`, { timeoutMs: 60_000 });
      };
      return { mirror, upstream, containerd, image, layer, pull };
    };

    await t.test("everything from the mirror, one request an object, nothing from upstream", async (t) => {
      const { mirror, pull } = await scene(t);
      await pull();
      t.same(upstream.requests, []);
      const asked = mirror.content.asked.filter((one) => one.startsWith("blob "));
      t.equal(new Set(asked).size, asked.length, "rule 0.10: also in chunked mode one stream a layer");
    });

    await t.test("rule 0.6: each decline costs one request, and upstream serves", async (t) => {
      const failures = [
        new SourceError("RATE_LIMITED", "upstream", { status: 429, retryAfterMs: 60_000 }),
        new AllSourcesFailedError("it", [new SourceError("STATUS", "upstream", { status: 503 })]),
      ];
      for (const failure of failures) {
        const { mirror, pull } = await scene(t);
        mirror.content.before = () => {
          throw failure;
        };
        await pull();
        t.ok(upstream.requests.length >= 4, "tag, manifest, config and layers came from upstream");
        const counts = Map.groupBy(mirror.log.at(20), (line) =>
          [line["method"], line["kind"], line["digest"] ?? line["tag"]].join(" "),
        );
        for (const [object, lines] of counts) t.equal(lines.length, 1, `${failure.name}: ${object}`);
      }
    });

    await t.test("rules 0.2 and 0.3: a source lost mid-body: FIN, then the rest from upstream", async (t) => {
      const scenery = await scene(t);
      loseLayer(scenery, () => {
        throw new SourceError("CUT", "peer");
      });
      await scenery.pull();
      await restCameFromUpstream(t, scenery, "source");
    });

    await t.test("rule 0.1: a source that stalls mid-body: cut by the watchdog, then the same", async (t) => {
      const scenery = await scene(t, { stallMs: 300 });
      loseLayer(scenery, () => new Promise(() => undefined));
      await scenery.pull();
      await restCameFromUpstream(t, scenery, "stall");
    });

    await t.test("rule 0.1: content that never answers is declined, and upstream serves", async (t) => {
      const { mirror, pull } = await scene(t, { firstByteMs: 100 });
      mirror.content.before = () => new Promise(() => undefined);
      await pull();
      t.ok(upstream.requests.length >= 4);
    });

    await t.test("a mirror that closes mid-body: drained with FIN, and the pull goes on", async (t) => {
      const scenery = await scene(t, { drainMs: 50 });
      loseLayer(scenery, async () => {
        void scenery.mirror.close();
        await new Promise(() => undefined);
      });
      await scenery.pull();
      t.equal(await scenery.mirror.metric("p2p_mirror_http_cuts_total", { reason: "drain" }), 1);
      t.ok(resumesAt(scenery).length > 0, "upstream was asked for the rest only");
    });
  });
}

/** The layer's source runs the fault when it is asked for the bytes at LOST_AT. */
function loseLayer({ mirror, layer }: Scene, fault: () => void | Promise<void>): void {
  mirror.content.blobs.set(layer.digest, {
    bytes: layer.bytes,
    source: "peer",
    open: async (range) => chunked(layer.bytes, range, (at) => (at < LOST_AT ? undefined : fault())),
  });
}

/** What upstream was asked of the layer: the offsets. */
function resumesAt({ upstream, layer }: Scene): number[] {
  return upstream.requests
    .filter((one) => one.path.includes(layer.digest))
    .map((one) => Number(/^bytes=(\d+)-/.exec(one.range ?? "")?.[1] ?? Number.NaN));
}

async function restCameFromUpstream(t: Test, scenery: Scene, reason: string): Promise<void> {
  const { mirror } = scenery;
  t.equal(await mirror.metric("p2p_mirror_http_cuts_total", { reason }), 1, "one cut");
  t.ok((await mirror.metric("p2p_mirror_http_cut_resumes_declined_total")) >= 1, "its resume was declined");
  const [first, ...others] = resumesAt(scenery);
  t.ok(first !== undefined && first > 0 && first <= LOST_AT, `resumed at upstream from ${first}`);
  t.same(
    others.filter((at) => !(at > 0)),
    [],
    "never again from the start",
  );
}

function digestOf(text: string): Digest {
  if (!isDigest(text)) throw new TypeError(`${text} is no digest`);
  return text;
}
