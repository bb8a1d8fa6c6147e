/** The overlays for distributions whose containerd lives elsewhere, on nodes that have it there. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import t from "tap";
import type { DoctorReport } from "../packages/p2p-mirror/src/status.ts";
import { CLUSTER_COMPONENTS, startCluster } from "./rig/kubernetes/cluster.ts";
import { installedMirror, MANIFESTS, NAMESPACE, pushMirror } from "./rig/kubernetes/installed-mirror.ts";
import { changes, nodeTreeOf } from "./rig/kubernetes/node-tree.ts";
import { createPulls } from "./rig/kubernetes/pulls.ts";
import { direct } from "./rig/kubernetes/upstream.ts";
import { need } from "./rig/need.ts";

const MIB = 1024 * 1024;

const components = await need(t, {
  machines: true,
  components: [...CLUSTER_COMPONENTS, "containerd-1.7", "containerd-2.x"],
});
if (components !== undefined) {
  for (const distribution of ["k3s", "rke2"] as const) {
    await t.test(`${distribution}: installed, pulled through, and gone again`, async (t) => {
      const folder = t.testdir();
      const series = ["1.7", "2.x"] as const;
      await using cluster = await startCluster({
        components,
        nodes: series.map((containerd) => ({ containerd, distribution })),
      });
      const { kubectl, nodes, upstream } = cluster;
      const [first, second] = nodes;
      if (first === undefined || second === undefined) throw new TypeError("two nodes");
      const mirror = installedMirror(cluster);
      const pulls = createPulls(cluster);
      const before = await Promise.all(nodes.map(nodeTreeOf));
      const changed = (): Promise<string[][]> =>
        Promise.all(nodes.map(async (node, index) => changes(before[index] ?? {}, await nodeTreeOf(node))));

      const overlay = join(folder, "overlay");
      await mkdir(overlay, { recursive: true });
      const kustomization = {
        resources: [relative(overlay, join(MANIFESTS, "overlays", distribution))],
        secretGenerator: [
          {
            name: "p2p-mirror-secret",
            namespace: NAMESPACE,
            literals: ["first=of a cluster that is gone in a minute, and protects nothing"],
          },
        ],
      };
      await writeFile(join(overlay, "kustomization.yaml"), JSON.stringify(kustomization));
      await mkdir(join(folder, "image"));
      await pushMirror(upstream.url, join(folder, "image"));
      await kubectl.run(["apply", "--kustomize", overlay]);
      await mirror.untilReady(100_000);
      await mirror.untilWhole(nodes);

      for (const node of nodes) {
        const { certsDir } = node.paths;
        const file = join(certsDir, "_default/hosts.toml");
        t.match(
          await readFile(node.machine.file(file), "utf8"),
          '[host."http://127.0.0.1:24220"]',
          node.name,
        );
        const pod = await mirror.podOn(node);
        const doctor = ["exec", `--namespace=${NAMESPACE}`, pod, "--", "p2p-mirror", "doctor", "--json"];
        const report: DoctorReport = JSON.parse((await kubectl.attempt(doctor)).stdout);
        t.same(report.findings, [], `${node.name}, containerd ${node.containerdVersion}`);
      }
      for (const [from, to] of [
        [first, second],
        [second, first],
      ] as const) {
        t.ok(
          (await pulls.bytesFromUpstream(from, to)) < MIB,
          `${to.name} has from ${from.name} what that has`,
        );
        t.same(direct(upstream.requests), [], "no containerd has asked upstream itself");
      }

      await kubectl.run(["apply", "--kustomize", join(MANIFESTS, "uninstall", distribution)]);
      await mirror.untilReady(100_000);
      await kubectl.run(["delete", "--kustomize", overlay]);
      for (const paths of await changed()) t.same(paths, [], "byte for byte");
      upstream.forget();
      await pulls.pull(first, await pulls.newImage());
      t.equal(direct(upstream.requests).length, upstream.requests.length);
    });
  }
}
