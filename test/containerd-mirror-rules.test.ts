/**
 * What containerd does by itself, and what that means for the mirror beside it: the rules that no endpoint alone can
 * show. Each is shown twice, at a real containerd and at the real mirror in front of it.
 */
import { stat } from "node:fs/promises";
import path from "node:path";
import {
  contentService,
  Contracts,
  GrpcChannel,
  imagesService,
  introspectionService,
  methodOf,
} from "@p2p-mirror/shared/grpc";
import t, { type Test } from "tap";
import { deafListener } from "./rig/deaf-listener.ts";
import type { ComponentName } from "./rig/components.ts";
import { startContainerd, type Containerd } from "./rig/containerd.ts";
import { createCri, type Cri } from "./rig/cri.ts";
import { writeHosts, type HostEntry } from "./rig/hosts.ts";
import { blobsOf, makeImage, pushImage, type Content } from "./rig/images.ts";
import { isAlive } from "./rig/lock.ts";
import { startMirror, type Mirror } from "./rig/mirror.ts";
import { need } from "./rig/need.ts";
import { startOciRegistry, type OciRegistry } from "./rig/oci-registry.ts";
import { startRecorder, type Recorder } from "./rig/recorder.ts";
import { until } from "./rig/until.ts";

const REGISTRY = "reg.example.test";
const MIB = 1024 * 1024;

const VERSIONS = ["containerd-1.6", "containerd-1.7", "containerd-2.1", "containerd-2.x"] as const;

interface Scene {
  readonly name: ComponentName;
  readonly upstream: OciRegistry;
  readonly containerd: Containerd;
  readonly cri: Cri;
  readonly mirror: Mirror;
  /** In front of the mirror, what containerd asks it. */
  readonly recorder: Recorder;
  /** Puts an image at upstream, and gives its reference. */
  push(image: Content): Promise<string>;
  /** Who is asked before upstream; default the mirror, through the recorder. */
  hosts(entry?: string | HostEntry): Promise<void>;
}

const RULES: Readonly<Record<string, (t: Test, scene: Scene) => Promise<void>>> = {
  "rule 0.5: after a failed pull containerd has nothing left; the mirror has, and asks upstream for the rest only":
    retryBeginsAnew,
  "rule 0.7: a mirror that refuses costs nothing, and is asked first again at once when it is back":
    noMemoryOfHealth,
  "rule 0.7: an address that drops SYNs holds the pull up, which loopback never does": blackHole,
  "rule 0.8: capabilities are about the tag only; whatever they say, the rest is asked of the mirror":
    capabilitiesCount,
  "rule 0.9: an image update without its target kills containerd from 1.7 on; the mirror cannot send one, and outlives it":
    updateWithoutTarget,
  "rule 3.6: pulls at the same time ask for each shared blob once": sharedBlobsOnce,
};

async function retryBeginsAnew(t: Test, scene: Scene): Promise<void> {
  const { upstream, containerd, cri, recorder } = scene;
  const image = makeImage({ seed: `${scene.name} 0.5`, layers: [MIB, 2 * MIB] });
  const reference = await scene.push(image);
  const [large, ...others] = blobsOf(image).toSorted((a, b) => b.descriptor.size - a.descriptor.size);
  if (large === undefined) throw new TypeError("an image has blobs");
  const fault = {
    match: { kind: "blob", path: large.descriptor.digest },
    status: 500,
    delayMs: 300,
  } as const;
  upstream.faults.set([fault]);
  const failing = t.rejects(cri.pull(reference), "the large layer comes from nowhere");
  await until("all others are in containerd", () => allThere(containerd, others));
  await failing;
  upstream.faults.clear();
  await until("containerd has thrown all of them away", () => noneThere(containerd, blobsOf(image)));

  upstream.forget();
  recorder.clear();
  await cri.pull(reference);
  const asked = recorder.requests.filter(({ url }) => url.includes("/blobs/"));
  for (const { descriptor } of blobsOf(image)) {
    const requests = asked.filter(({ url }) => url.includes(descriptor.digest));
    t.same(
      requests.map(({ headers, bytes }) => [headers["range"], bytes]),
      [[undefined, descriptor.size]],
      `${descriptor.mediaType}: all of it once more`,
    );
  }
  t.same(
    upstream.requests
      .filter(({ method, kind }) => kind === "blob" && method === "GET")
      .map((one) => [/sha256:\w+/.exec(one.path)?.[0], byMirror(one)]),
    [[large.descriptor.digest, true]],
    "upstream gave the missing layer only",
  );
}

async function noMemoryOfHealth(t: Test, scene: Scene): Promise<void> {
  const { upstream, cri, mirror } = scene;
  // Not the recorder: it would accept and then have nobody to ask.
  await scene.hosts(mirror.url);
  const without = await scene.push(makeImage({ seed: `${scene.name} 0.7 without` }));
  await mirror.stop();
  const began = performance.now();
  await cri.pull(without);
  t.ok(performance.now() - began < 15_000, "not one of its dial timeouts of 30 s");
  t.equal(upstream.requests.filter(byMirror).length, 0);
  t.ok(upstream.requests.length >= 4, "tag, manifest, config and layer came from upstream");

  const again = await scene.push(makeImage({ seed: `${scene.name} 0.7 again` }));
  await mirror.start();
  await cri.pull(again);
  t.same(
    upstream.requests.filter((one) => !byMirror(one)),
    [],
    "everything by the mirror",
  );
}

async function blackHole(t: Test, scene: Scene): Promise<void> {
  const { upstream, cri } = scene;
  await using deaf = await deafListener();
  const url = `http://127.0.0.1:${deaf.port}`;
  const reference = await scene.push(makeImage({ seed: `${scene.name} 0.7 black hole` }));
  await scene.hosts(url);
  await t.rejects(cri.pull(reference, { timeoutMs: 3_000 }), "nothing within 3 s");
  t.same(upstream.requests, [], "it still waits for the first answer of the mirror");
  if (!scene.name.startsWith("containerd-2")) return;
  await scene.hosts({ url, dialTimeout: "1s" });
  const began = performance.now();
  await cri.pull(reference);
  const took = performance.now() - began;
  t.ok(took > 2_000 && took < 25_000, `each step waits for its dial timeout of 1 s: ${Math.round(took)} ms`);
  t.ok(upstream.requests.length >= 4);
}

async function capabilitiesCount(t: Test, scene: Scene): Promise<void> {
  const { upstream, cri, recorder } = scene;
  for (const capabilities of [["pull"], ["resolve"], ["pull", "resolve"]]) {
    const what = capabilities.join(" and ");
    const image = makeImage({ seed: `${scene.name} 0.8 ${what}` });
    const reference = await scene.push(image);
    await scene.hosts({ url: recorder.url, capabilities });
    await cri.pull(reference);
    const heads = recorder.requests.filter(({ method }) => method === "HEAD").length;
    t.equal(heads > 0, capabilities.length === 2, `${what}: the tag takes both`);
    for (const { descriptor } of [image, ...blobsOf(image)]) {
      t.ok(
        recorder.requests.some(
          ({ method, url, status }) => method === "GET" && url.includes(descriptor.digest) && status === 200,
        ),
        `${what}: ${descriptor.mediaType} by the mirror`,
      );
    }
    t.same(
      upstream.requests.filter((one) => !byMirror(one) && one.method !== "HEAD"),
      [],
      "and nothing past it",
    );
  }
}

const WRITING = new Contracts([
  `syntax = "proto3";
   package google.protobuf;
   message FieldMask { repeated string paths = 1; }`,
  `syntax = "proto3";
   package containerd.services.images.v1;
   service Images { rpc Update(UpdateImageRequest) returns (UpdateImageResponse); }
   message Descriptor { string media_type = 1; string digest = 2; int64 size = 3; }
   message Image { string name = 1; map<string, string> labels = 2; Descriptor target = 3; }
   message UpdateImageRequest { Image image = 1; google.protobuf.FieldMask update_mask = 2; }
   message UpdateImageResponse { Image image = 1; }`,
]).service("containerd.services.images.v1.Images");

async function updateWithoutTarget(t: Test, scene: Scene): Promise<void> {
  const { containerd, cri, mirror } = scene;
  const image = makeImage({ seed: `${scene.name} 0.9` });
  const reference = await scene.push(image);
  await cri.pull(reference);
  const update = async (label: string, target?: Content["descriptor"]): Promise<void> => {
    const headers = { "containerd-namespace": "k8s.io" };
    const channel = new GrpcChannel({ socket: containerd.socket, source: "containerd", headers });
    const labels = { [label]: "yes" };
    const named = { name: reference, labels, ...(target && { target }) };
    try {
      const request = { image: named, updateMask: { paths: [`labels.${label}`] } };
      await channel.unary(methodOf(WRITING, "Update"), request);
    } finally {
      channel.close();
    }
  };
  const labelled = async (label: string): Promise<boolean> =>
    (await containerd.ctr(["image", "list", `name==${reference}`])).stdout.includes(`${label}=yes`);

  await update("with-target", image.descriptor);
  t.ok(await labelled("with-target"), "with its target, as Get gave it, an update is one");
  if (scene.name === "containerd-1.6") {
    await update("without-target");
    t.ok(await labelled("without-target"), "1.6 takes it without");
  } else {
    const { pid } = containerd;
    await t.rejects(update("without-target"), { code: /UNREACHABLE|CUT|STATUS/ });
    await until("containerd is dead", () => !isAlive(pid));
    t.match(containerd.log(), /nil pointer dereference/);
    const blob = `${mirror.url}/v2/${reference.split(/[/:]/).slice(1, 3).join("/")}/blobs/`;
    for (const { descriptor } of blobsOf(image)) {
      const answer = await fetch(`${blob}${descriptor.digest}?ns=${REGISTRY}`);
      t.equal((await answer.arrayBuffer()).byteLength, descriptor.size, "the mirror serves on meanwhile");
    }
    await containerd.restart();
    await until(
      "the mirror reads from it again",
      async () => (await mirror.metrics()).sum("p2p_mirror_containerd_up") === 1,
    );
  }
  const methods = [imagesService, contentService, introspectionService].flatMap((it) => Object.keys(it));
  t.same(methods.toSorted(), ["Get", "Info", "List", "List", "Plugins", "Read"], "the mirror can only read");
}

async function sharedBlobsOnce(t: Test, scene: Scene): Promise<void> {
  const { upstream, cri, recorder } = scene;
  const seed = `${scene.name} 3.6`;
  const [one, two] = [makeImage({ seed, layers: [3 * MIB] }), makeImage({ seed, layers: [3 * MIB, 1000] })];
  const shared = one.blobs.find(({ descriptor }) =>
    two.blobs.some((other) => other.descriptor.digest === descriptor.digest),
  );
  if (shared === undefined) throw new TypeError("they share a layer");
  const references = [await scene.push(one), await scene.push(two)];
  // So that all of them want it before anybody has it.
  upstream.faults.set([{ match: { kind: "blob", path: shared.descriptor.digest }, delayMs: 500 }]);
  await Promise.all([...references, ...references].map((reference) => cri.pull(reference)));
  upstream.faults.clear();
  const blobs = new Set([...blobsOf(one), ...blobsOf(two)].map(({ descriptor }) => descriptor.digest));
  for (const digest of blobs) {
    const asked = recorder.requests.filter(({ url }) => url.includes(`/blobs/${digest}`));
    t.equal(asked.length, 1, `${digest} was asked of the mirror once`);
  }
  const fetched = upstream.requests.filter(
    ({ method, path: asked }) => method === "GET" && asked.includes(shared.descriptor.digest),
  );
  t.equal(fetched.length, 1, "and of upstream");
}

const byMirror = ({ headers }: OciRegistry["requests"][number]): boolean =>
  String(headers["user-agent"]).startsWith("p2p-mirror");

const fileIn = ({ contentDir }: Containerd, digest: string): string =>
  path.join(contentDir, "blobs/sha256", digest.slice("sha256:".length));

async function held(containerd: Containerd, blobs: Content["blobs"]): Promise<number> {
  const found = await Promise.all(
    blobs.map(({ descriptor }) =>
      stat(fileIn(containerd, descriptor.digest)).then(
        () => 1,
        () => 0,
      ),
    ),
  );
  return found.reduce<number>((sum, there) => sum + there, 0);
}

const allThere = async (containerd: Containerd, blobs: Content["blobs"]): Promise<boolean> =>
  (await held(containerd, blobs)) === blobs.length;

const noneThere = async (containerd: Containerd, blobs: Content["blobs"]): Promise<boolean> =>
  (await held(containerd, blobs)) === 0;

// Side by side: they share nothing, and mostly wait.
t.jobs = VERSIONS.length;
await Promise.all(
  VERSIONS.map((name) =>
    t.test(name, { buffered: true }, async (t) => {
      const components = await need(t, { root: true, components: [name] });
      if (components === undefined) return;
      await using stack = new AsyncDisposableStack();
      const upstream = stack.adopt(await startOciRegistry(), (it) => it.close());
      const containerd = stack.use(await startContainerd({ component: components(name) }));
      const cri = stack.use(createCri(containerd.socket));
      const mirror = stack.use(
        await startMirror({ upstreams: { [REGISTRY]: upstream.url }, containerdSocket: containerd.socket }),
      );
      const recorder = stack.use(await startRecorder({ target: mirror.url }));
      let images = 0;
      const scene: Scene = {
        name,
        upstream,
        containerd,
        cri,
        mirror,
        recorder,
        push: async (image) => {
          const repository = `rules/${++images}`;
          await pushImage(image, { registry: upstream.url, repository, tags: ["v1"] });
          upstream.forget();
          recorder.clear();
          return `${REGISTRY}/${repository}:v1`;
        },
        hosts: async (entry = recorder.url) =>
          void (await writeHosts(containerd.certsDir, REGISTRY, { server: upstream.url, mirrors: [entry] })),
      };
      for (const [title, rule] of Object.entries(RULES)) {
        await t.test(title, async (t) => {
          await scene.hosts();
          await rule(t, scene);
        });
      }
    }),
  ),
);
