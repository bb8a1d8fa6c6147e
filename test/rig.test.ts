import t from "tap";
import { startContainerd } from "./rig/containerd.ts";
import { createCri } from "./rig/cri.ts";
import { startDockerRegistry } from "./rig/docker-registry.ts";
import { writeHosts } from "./rig/hosts.ts";
import { makeImage, makeMultiArch, pushImage } from "./rig/images.ts";
import { need } from "./rig/need.ts";
import { createNetwork } from "./rig/netns.ts";

await t.test(
  "a containerd 1.7 in a network namespace pulls from a real registry by ctr and by CRI",
  async (t) => {
    const components = await need(t, {
      root: true,
      netns: true,
      components: ["containerd-1.7", "docker-registry"],
    });
    if (components === undefined) return;
    await using network = await createNetwork({ nodes: 2 });
    const [first, second] = network.nodes;
    if (first === undefined || second === undefined) throw new TypeError("two nodes were asked for");
    await using registry = await startDockerRegistry({
      component: components("docker-registry"),
      netns: first.netns,
      address: first.address,
    });
    const image = makeMultiArch({ seed: "rig", layers: [100_000, 3_000_000], compression: "gzip" });
    await pushImage(image, { registry: registry.url, repository: "team/app", tags: ["v1"] });
    const other = makeImage({ seed: "rig-2", layers: [1_000_000], compression: "zstd" });
    await pushImage(other, { registry: registry.url, repository: "team/other", tags: ["v1"] });

    await using containerd = await startContainerd({
      component: components("containerd-1.7"),
      netns: second.netns,
    });
    await writeHosts(containerd.certsDir, "reg.example.test", { server: registry.url, mirrors: [] });
    await containerd.pull("reg.example.test/team/app:v1");
    const listed = await containerd.ctr(["image", "list"]);
    t.match(listed.stdout, image.descriptor.digest);

    await using cri = createCri(containerd.socket);
    const id = await cri.pull("reg.example.test/team/other:v1");
    t.equal(id, other.blobs[0]?.descriptor.digest);
    t.same((await cri.status("reg.example.test/team/other:v1"))?.repoDigests, [
      `reg.example.test/team/other@${other.descriptor.digest}`,
    ]);
    await cri.remove("reg.example.test/team/other:v1");
    t.equal(await cri.status("reg.example.test/team/other:v1"), undefined);
  },
);
