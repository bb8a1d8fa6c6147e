/** What happens to a cluster with the mirror in it: power cuts, restarts, nodes that come and go, a lost control plane. */
import t from "tap";
import { CLUSTER_COMPONENTS, startCluster } from "./rig/kubernetes/cluster.ts";
import { installedMirror, MANIFESTS, NAMESPACE, pushMirror } from "./rig/kubernetes/installed-mirror.ts";
import { createPulls } from "./rig/kubernetes/pulls.ts";
import { need } from "./rig/need.ts";
import { until } from "./rig/until.ts";

const MIB = 1024 * 1024;
/** How long a mesh may take to be whole again. */
const WHOLE_MS = 30_000;

const components = await need(t, {
  machines: true,
  components: [...CLUSTER_COMPONENTS, "containerd-1.7", "containerd-2.x"],
});
if (components !== undefined) {
  const cluster = await startCluster({
    components,
    nodes: [{ containerd: "1.7" }, { containerd: "2.x" }, { containerd: "2.x" }],
    spare: 1,
  });
  t.teardown(() => cluster[Symbol.asyncDispose]());
  const { kubectl, upstream, controlPlane } = cluster;
  const nodes = [...cluster.nodes];
  const [first, second, third] = nodes;
  if (first === undefined || second === undefined || third === undefined) throw new TypeError("three nodes");
  const mirror = installedMirror(cluster);

  const pulls = createPulls(cluster);
  await pushMirror(upstream.url, t.testdir());
  await kubectl.run(["apply", "--kustomize", `${MANIFESTS}/overlays/dev`]);
  await mirror.untilReady();
  await mirror.untilWhole(nodes);

  await t.test("a node loses power and comes back", async (t) => {
    await pulls.during([first, second], async () => {
      await third.cutPower();
      await mirror.untilWhole([first, second], WHOLE_MS);
      await third.boot();
      await until("its mirror is ready again", () => mirror.isReady(third), {
        timeoutMs: 120_000,
        everyMs: 250,
      });
    });
    await mirror.untilWhole(nodes, WHOLE_MS);
    t.ok((await pulls.bytesFromUpstream(first, third)) < MIB, "it gets from others what they have");
  });

  await t.test("containerd and kubelet are restarted", async (t) => {
    for (const node of [first, second]) {
      await pulls.during([third], async () => {
        await node.containerd.restart();
        await node.kubelet.restart();
      });
      await cluster.untilReady();
      await mirror.untilWhole(nodes, WHOLE_MS);
      t.ok(
        (await pulls.bytesFromUpstream(node, third)) < MIB,
        "its mirror knows what containerd has got since",
      );
    }
  });

  await t.test("a node joins, is drained and deleted", async (t) => {
    const { result: fourth } = await pulls.during(nodes, async () => {
      const node = await cluster.addNode({ containerd: "2.x" });
      await until("it has a mirror", () => mirror.isReady(node), { timeoutMs: 60_000, everyMs: 250 });
      return node;
    });
    await mirror.untilWhole([...nodes, fourth], WHOLE_MS);
    t.ok((await pulls.bytesFromUpstream(first, fourth)) < MIB, "it is a member at once");
    const only = await pulls.newImage([8 * MIB]);
    await pulls.pull(fourth, only);
    await pulls.during(nodes, async () => {
      await kubectl.run(["drain", "--ignore-daemonsets", "--force", "--timeout=60s", fourth.name]);
      await kubectl.run(["delete", "node", fourth.name]);
      await fourth.cutPower();
    });
    await mirror.untilWhole(nodes, WHOLE_MS);
    await pulls.pull(first, only);
  });

  await t.test("the cluster's DNS and API server are down", async (t) => {
    await Promise.all([controlPlane.dns.kill(), controlPlane.apiServer.kill()]);
    t.ok((await pulls.bytesFromUpstream(second, first)) < MIB, "pulls go on");
    await mirror.startedAnew(first, () => mirror.kill(first));
    await mirror.untilWhole(nodes, WHOLE_MS);
    t.ok(
      (await pulls.bytesFromUpstream(second, first)) < MIB,
      "it has found the others by what it remembered",
    );
    await Promise.all([controlPlane.dns.start(), controlPlane.apiServer.start()]);
    await cluster.untilReady();
  });

  await t.test("the ServiceAccount may do what it is for, and nothing else", async (t) => {
    const account = [`--namespace=${NAMESPACE}`];
    const token = (await kubectl.run(["create", "token", "p2p-mirror", ...account])).trim();
    const asks = (args: readonly string[]): Promise<{ readonly code: number; readonly stderr: string }> =>
      kubectl.attempt(["get", ...args, `--token=${token}`]);
    t.equal((await asks(["endpointslices", ...account])).code, 0);
    for (const what of ["secrets", "pods", "configmaps", "serviceaccounts"]) {
      t.match((await asks([what, ...account])).stderr, /forbidden/, what);
    }
    for (const what of [
      "nodes",
      "namespaces",
      "secrets --all-namespaces",
      "endpointslices --all-namespaces",
    ]) {
      t.match((await asks(what.split(" "))).stderr, /forbidden/, what);
    }
  });
}
