/** The rig itself, on the real components: what later tests take for granted is shown here. */
import { readFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { type Containerd, startContainerd } from "./rig/containerd.ts";
import type { ComponentName } from "./rig/components.ts";
import { createCri } from "./rig/cri.ts";
import { startDockerRegistry } from "./rig/docker-registry.ts";
import { writeHosts } from "./rig/hosts.ts";
import { type Content, makeImage, makeMultiArch, pushImage, sha256 } from "./rig/images.ts";
import { need } from "./rig/need.ts";
import { createNetwork } from "./rig/netns.ts";
import { startRecorder } from "./rig/recorder.ts";

const REGISTRY = "reg.example.test";
const MIB = 1024 * 1024;

interface Case {
  readonly name: ComponentName;
  readonly version: RegExp;
  readonly chunked: boolean;
}

const CASES: readonly Case[] = [
  { name: "containerd-1.6", version: /^1\.6\./, chunked: false },
  { name: "containerd-1.7", version: /^1\.7\./, chunked: false },
  { name: "containerd-2.1", version: /^2\.1\./, chunked: false },
  { name: "containerd-2.1", version: /^2\.1\./, chunked: true },
  { name: "containerd-2.x", version: /^2\.\d+\./, chunked: false },
  { name: "containerd-2.x", version: /^2\.\d+\./, chunked: true },
];

for (const { name, version, chunked } of CASES) {
  const mode = chunked ? " in chunked mode" : "";
  await t.test(
    `${name}${mode} pulls in a network namespace, by ctr and by CRI, with real unpack`,
    async (t) => {
      const components = await need(t, { root: true, netns: true, components: [name, "docker-registry"] });
      if (components === undefined) return;
      t.match(components(name).version, version);

      await using network = await createNetwork({ nodes: 2 });
      const [upstream, node] = network.nodes;
      if (upstream === undefined || node === undefined) throw new TypeError("two nodes were asked for");
      await using registry = await startDockerRegistry({
        component: components("docker-registry"),
        netns: upstream.netns,
        address: upstream.address,
      });
      await using recorder = await startRecorder({ target: registry.url, address: network.hostAddress });
      const target = { registry: registry.url, tags: ["v1"] };
      const gzip = makeMultiArch({ seed: name, layers: [100_000, 20 * MIB], compression: "gzip" });
      await pushImage(gzip, { ...target, repository: "team/gzip" });
      const zstd = makeImage({ seed: `${name} zstd`, layers: [3 * MIB], compression: "zstd" });
      await pushImage(zstd, { ...target, repository: "team/zstd" });
      const docker = makeMultiArch({ seed: `${name} docker`, docker: true });
      await pushImage(docker, { ...target, repository: "team/docker" });

      await using containerd = await startContainerd({
        component: components(name),
        netns: node.netns,
        chunked,
      });
      await writeHosts(containerd.certsDir, REGISTRY, { server: recorder.url, mirrors: [] });

      await containerd.pull(`${REGISTRY}/team/gzip:v1`);
      t.match((await containerd.ctr(["image", "list"])).stdout, gzip.descriptor.digest);
      await holdsLayers(t, containerd, gzip);
      const ranges = recorder.requests.map((one) => one.headers["range"] ?? "");
      t.equal(ranges.includes("bytes=8388608-"), chunked, `layers in chunks: ${chunked}`);

      await using cri = createCri(containerd.socket);
      for (const [repository, content] of [
        ["team/zstd", zstd],
        ["team/docker", docker],
      ] as const) {
        const reference = `${REGISTRY}/${repository}:v1`;
        const id = await cri.pull(reference);
        const found = await cri.status(reference);
        t.equal(found?.id, id, repository);
        t.same(found?.repoDigests, [`${REGISTRY}/${repository}@${content.descriptor.digest}`], repository);
        await cri.remove(reference);
        t.equal(await cri.status(reference), undefined, `${repository} is removed`);
      }

      await containerd.kill();
      await containerd.restart();
      t.match(
        (await containerd.ctr(["image", "list"])).stdout,
        gzip.descriptor.digest,
        "data outlives a crash",
      );
    },
  );
}

/** Every byte of this machine's layers lies in the content store. */
async function holdsLayers(t: Tap, containerd: Containerd, content: Content): Promise<void> {
  const own = content.manifests.find(
    ({ descriptor }) =>
      descriptor.platform?.architecture === (process.arch === "x64" ? "amd64" : process.arch),
  );
  t.ok(own, "the image has this machine's platform");
  for (const { descriptor } of own?.blobs ?? []) {
    const file = path.join(containerd.contentDir, "blobs", descriptor.digest.replace(":", "/"));
    t.equal(sha256(await readFile(file)), descriptor.digest);
  }
}

type Tap = Pick<typeof t, "ok" | "equal">;
