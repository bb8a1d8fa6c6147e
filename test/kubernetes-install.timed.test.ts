/** The mirror on a real cluster, from `kubectl apply` to the node as it was before. */
import t from "tap";
import type { DoctorReport } from "../packages/p2p-mirror/src/status.ts";
import { writeHosts } from "./rig/hosts.ts";
import { type Content, blobsOf, pushImage } from "./rig/images.ts";
import { CLUSTER_COMPONENTS, REGISTRY, startCluster } from "./rig/kubernetes/cluster.ts";
import { busyboxImage } from "./rig/kubernetes/images.ts";
import { installedMirror, MANIFESTS, NAMESPACE, pushMirror } from "./rig/kubernetes/installed-mirror.ts";
import { CERTS_DIR } from "./rig/kubernetes/node-files.ts";
import { changes, namedAfterMirror, type NodeTree, nodeTreeOf } from "./rig/kubernetes/node-tree.ts";
import { direct } from "./rig/kubernetes/upstream.ts";
import { deploymentOf, podOf } from "./rig/kubernetes/workloads.ts";
import { need } from "./rig/need.ts";
import { startOciRegistry } from "./rig/oci-registry.ts";
import { untilGood } from "./rig/until-good.ts";
import { until } from "./rig/until.ts";

const MIB = 1024 * 1024;
const LARGE = [80 * MIB, 80 * MIB, 40 * MIB];
/** Thin enough that it, and not the processors, decides how long the image takes. */
const UPLINK = 16 * MIB;
const ONE_COPY = 1.05;
const TRIES = 3;
const ZONE = "room-1";
const PRIVATE = "private.example.test";

const seconds = (since: number): string => ((performance.now() - since) / 1000).toFixed(1);

const components = await need(t, {
  machines: true,
  components: [...CLUSTER_COMPONENTS, "containerd-1.7", "containerd-2.x", "busybox"],
});
if (components !== undefined) {
  const cluster = await startCluster({
    components,
    nodes: [{ containerd: "1.7" }, { containerd: "2.x" }, { containerd: "2.x" }],
  });
  t.teardown(() => cluster[Symbol.asyncDispose]());
  const { kubectl, nodes, upstream } = cluster;
  const [first, second, third] = nodes;
  if (first === undefined || second === undefined || third === undefined) throw new TypeError("three nodes");
  const mirror = installedMirror(cluster);

  /** A new image in the registry. */
  const imageOf = async (repository: string, layers: readonly number[] = []): Promise<Content> => {
    const content = await busyboxImage(components("busybox"), { seed: repository, layers });
    await pushImage(content, { registry: upstream.url, repository, tags: ["1"] });
    return content;
  };
  const untilRuns = (pod: string): Promise<string> =>
    kubectl.run(["wait", "--for=condition=Ready", "--timeout=90s", `pod/${pod}`]);
  const treesOf = (): Promise<NodeTree[]> => Promise.all(nodes.map(nodeTreeOf));

  const privateRegistry = await startOciRegistry({
    host: cluster.hostAddress,
    auth: { kind: "basic", users: { robot: "password of the robot" } },
  });
  t.teardown(() => privateRegistry.close());
  for (const { machine } of nodes) {
    const { url } = privateRegistry;
    await writeHosts(machine.file(CERTS_DIR), PRIVATE, { server: url, mirrors: [url] });
  }
  const treesBefore = await treesOf();

  await t.test("one apply installs it", async (t) => {
    await pushMirror(upstream.url, t.testdir({}));
    await kubectl.run(["label", "nodes", "--all", `topology.kubernetes.io/zone=${ZONE}`]);
    const begin = performance.now();
    await kubectl.run(["apply", "--kustomize", `${MANIFESTS}/overlays/dev`]);
    await mirror.untilReady();
    t.comment(`apply to all Ready: ${seconds(begin)} s`);
    t.ok(performance.now() - begin < 60_000);
    await mirror.untilWhole(nodes);
    const { version } = components("kubernetes");
    // Only then do Pods get the label of their node.
    const zone = Number(version.split(".")[1]) < 35 ? "" : ZONE;
    for (const node of nodes)
      t.equal((await mirror.status(node)).node.zone, zone, `the zone of ${node.name}`);
    for (const node of nodes) {
      const mib = (await mirror.metric(node, "process_resident_memory_bytes")) / MIB;
      t.comment(`${node.name} takes ${mib.toFixed(0)} MiB`);
      t.ok(mib > 0 && mib <= 110);
    }
  });

  await t.test("the status page is reached by kubectl port-forward", async (t) => {
    for (const node of [first, second]) {
      const pod = await mirror.podOn(node);
      await using forward = await kubectl.forward([`--namespace=${NAMESPACE}`, pod], 24223);
      t.match(await (await fetch(`${forward.url}/`)).text(), /<script[^>]* src="page\.js"/, node.name);
      t.match(await (await fetch(`${forward.url}/status`)).json(), {
        node: { id: (await mirror.status(node)).node.id },
      });
    }
  });

  await t.test("the doctor finds nothing that is wrong", async (t) => {
    for (const node of nodes) {
      const pod = await mirror.podOn(node);
      const args = ["exec", `--namespace=${NAMESPACE}`, pod, "--", "p2p-mirror", "doctor", "--json"];
      const { code, stdout, stderr } = await kubectl.attempt(args);
      t.equal(code, 0, `${node.name}: ${stderr}`);
      const report: DoctorReport = JSON.parse(stdout);
      t.same(report.findings, [], `${node.name}, containerd ${node.containerdVersion}`);
    }
  });

  await t.test("what one node has pulled, the others get from it", async (t) => {
    await imageOf("pulled", [8 * MIB]);
    upstream.forget();
    await kubectl.apply(podOf("one", { image: `${REGISTRY}/pulled:1`, node: first.name }));
    await untilRuns("one");
    const bytes = upstream.bytesOf("pulled");
    t.ok(bytes > 8 * MIB, `${bytes} bytes for the first`);
    await kubectl.apply(podOf("two", { image: `${REGISTRY}/pulled:1`, node: second.name }));
    await untilRuns("two");
    t.same(direct(upstream.requests), [], "no containerd has asked upstream itself");
    const blobs = upstream.requests.filter(({ url }) => url.startsWith("/v2/pulled/blobs/"));
    const more = upstream.bytesOf("pulled") - bytes;
    t.ok(more < 64 * 1024, `${more} bytes for the second, of ${blobs.length} requests for blobs`);
  });

  await t.test("200 MiB for three nodes at once cross the uplink once", async (t) => {
    const once = async (nth: number): Promise<number> => {
      const name = `large-${nth}`;
      const content = await imageOf(name, LARGE);
      const size = blobsOf(content).reduce((sum, { bytes }) => sum + bytes.length, 0);
      upstream.setRate(UPLINK);
      const before = upstream.crossed;
      const begin = performance.now();
      await kubectl.apply(deploymentOf(name, 3, { image: `${REGISTRY}/${name}:1` }));
      await kubectl.run(["rollout", "status", "--timeout=150s", `deployment/${name}`]);
      const copies = (upstream.crossed - before) / size;
      t.comment(`three replicas of 200 MiB run after ${seconds(begin)} s, for ${copies.toFixed(3)} copies`);
      upstream.setRate(undefined);
      t.ok(copies >= 0.99 && copies < 2, "each for itself would be three");
      await kubectl.run(["delete", "deployment", name]);
      return copies;
    };
    const copies = await untilGood(TRIES, once, (one) => one <= ONE_COPY);
    t.ok(copies <= ONE_COPY, `${copies.toFixed(3)} copies`);
  });

  await t.test("a Pod with its imagePullSecret runs, and one without does not", async (t) => {
    const login = Buffer.from("robot:password of the robot").toString("base64");
    const content = await busyboxImage(components("busybox"), { seed: "private" });
    await pushImage(content, {
      registry: privateRegistry.url,
      repository: "team/private",
      tags: ["1"],
      headers: { authorization: `Basic ${login}` },
    });
    const config = JSON.stringify({ auths: { [PRIVATE]: { auth: login } } });
    await kubectl.apply({
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name: "pull" },
      type: "kubernetes.io/dockerconfigjson",
      stringData: { ".dockerconfigjson": config },
    });
    const image = `${PRIVATE}/team/private`;
    const imagePullSecrets = [{ name: "pull" }];
    await kubectl.apply(
      podOf("with-secret", { image: `${image}:1`, node: first.name, more: { imagePullSecrets } }),
    );
    await untilRuns("with-secret");
    // A node holds the image now. By its digest the mirrors could give it without a question to the registry.
    privateRegistry.forget();
    const held = { image: `${image}@${content.descriptor.digest}`, container: { imagePullPolicy: "Always" } };
    const withoutSecret = [first, second].map((node) => ({ node, pod: `without-${node.name}` }));
    await kubectl.apply(...withoutSecret.map(({ node, pod }) => podOf(pod, { ...held, node: node.name })));
    const reason = "--output=jsonpath={.status.containerStatuses[*].state.waiting.reason}";
    for (const { node, pod } of withoutSecret) {
      const refused = async (): Promise<boolean> =>
        /^(ErrImagePull|ImagePullBackOff)$/.test(await kubectl.run(["get", "pod", pod, reason]));
      await until(`${pod} is refused`, refused, { timeoutMs: 60_000, everyMs: 250 });
      const asked = privateRegistry.requests.filter(
        ({ from, headers }) =>
          from === node.address && String(headers["user-agent"]).startsWith("containerd/"),
      );
      t.ok(asked.length > 0, `containerd of ${node.name} was sent to the registry`);
      await kubectl.run(["delete", "pod", pod]);
    }
    const answers = privateRegistry.requests.map(({ status, authorization }) => ({ status, authorization }));
    const declined = answers.filter(({ status, authorization }) => status === 401 && !authorization);
    t.equal(declined.length, answers.length, "which has declined whoever asked");
  });

  await t.test("upstream is gone: what two nodes hold still starts on the third, by tag", async () => {
    await imageOf("kept", LARGE);
    const image = `${REGISTRY}/kept:1`;
    await kubectl.apply(
      podOf("kept-1", { image, node: first.name }),
      podOf("kept-2", { image, node: second.name }),
    );
    await untilRuns("kept-1");
    await untilRuns("kept-2");
    await upstream.off();
    const container = { imagePullPolicy: "Always" };
    await kubectl.apply(podOf("kept-3", { image, node: third.name, container }));
    await untilRuns("kept-3");
    await upstream.on();
  });

  await t.test("each mirror knows how far the others are", async (t) => {
    // They ping each other every half a minute.
    const known = async (): Promise<boolean> =>
      (await mirror.status(third)).peers.every(({ latencyMs }) => latencyMs !== undefined);
    await until("of each peer", known, { timeoutMs: 60_000, everyMs: 250 });
    const { node, peers } = await mirror.status(third);
    t.equal(peers.length, 2);
    for (const { zone, latencyMs = -1 } of peers) {
      t.equal(zone, node.zone);
      t.ok(latencyMs >= 0 && latencyMs < 10_000, `${latencyMs} ms`);
    }
  });

  await t.test("all that within the memory that a Pod of the mirror may have", async (t) => {
    const restarts = "--output=jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    t.equal(await kubectl.run(["get", "pods", `--namespace=${NAMESPACE}`, restarts]), "0 0 0");
  });

  await t.test("uninstalled, every node is as it was", async (t) => {
    await kubectl.run(["apply", "--kustomize", `${MANIFESTS}/uninstall/base`]);
    await mirror.untilReady();
    await kubectl.run(["delete", "--kustomize", `${MANIFESTS}/overlays/dev`]);
    for (const [index, tree] of (await treesOf()).entries()) {
      t.same(changes(treesBefore[index] ?? {}, tree), [], `${nodes[index]?.name}, byte for byte`);
    }
    for (const node of nodes) {
      const name = `after-${node.name}`;
      await imageOf(name);
      upstream.forget();
      await kubectl.apply(podOf(name, { image: `${REGISTRY}/${name}:1`, node: node.name }));
      await untilRuns(name);
      t.ok(direct(upstream.requests).length > 0, `containerd of ${node.name} asks upstream itself`);
      t.equal(direct(upstream.requests).length, upstream.requests.length, "and nobody else does");
    }
    for (const node of nodes) {
      // kubelet removes what a Pod has logged once a minute.
      let left: string[] = [];
      const none = async (): Promise<boolean> => (left = await namedAfterMirror(node)).length === 0;
      const patience = { timeoutMs: 180_000, everyMs: 1_000, detail: () => left.join("\n") };
      await until(`nothing on ${node.name} has the mirror's name`, none, patience);
    }
  });
}
