/** Other ways to install the mirror than the shortest, and the two ways to have it gone, on real kubelets. */
import { randomBytes } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import t from "tap";
import { stringify } from "yaml";
import { CONDITION_TYPE, type Condition } from "../packages/p2p-mirror/src/kubernetes/node-objects.ts";
import { seconds } from "./faults-support.ts";
import { prometheusCrds } from "./manifests/crds.ts";
import { documentedBlock, documentedLines, OPENSSL, shell } from "./manifests/documented.ts";
import { CLUSTER_COMPONENTS, startCluster } from "./rig/kubernetes/cluster.ts";
import { writeHosts } from "./rig/hosts.ts";
import {
  installedMirror,
  MANIFESTS,
  mirrorLayout,
  NAMESPACE,
  pushMirror,
} from "./rig/kubernetes/installed-mirror.ts";
import { CERTS_DIR, FILES } from "./rig/kubernetes/node-files.ts";
import type { KubernetesNode } from "./rig/kubernetes/node.ts";
import { changes, type NodeTree, nodeTreeOf } from "./rig/kubernetes/node-tree.ts";
import { need } from "./rig/need.ts";
import { withoutProxies } from "./rig/process.ts";
import { until } from "./rig/until.ts";

interface Event {
  readonly type: string;
  readonly reason: string;
}

interface Node {
  readonly status: { readonly conditions: readonly Condition[] };
}

const overlay = (name: string): string => join(MANIFESTS, name);
const DATA = "/var/lib/p2p-mirror";
const HOSTS_FILE = new RegExp(`^${CERTS_DIR}/[^/]+/hosts\\.toml$`);
const beside = (folder: string, paths: readonly string[]): string[] =>
  paths.filter((path) => path !== folder && !path.startsWith(`${folder}/`));

/** As the README has it. */
const README_REGISTRY = "registry.example";

const SLOW = { timeoutMs: 90_000, everyMs: 250 };

const components = await need(t, {
  machines: true,
  components: [...CLUSTER_COMPONENTS, "containerd-1.7", "containerd-2.x", "skopeo"],
});
if (components !== undefined) {
  const cluster = await startCluster({ components, nodes: [{ containerd: "1.7" }, { containerd: "2.x" }] });
  t.teardown(() => cluster[Symbol.asyncDispose]());
  const { kubectl, nodes, upstream } = cluster;
  const mirror = installedMirror(cluster);
  /** Paths of each node that are not as they were before the first mirror. */
  const changed = async (): Promise<string[][]> =>
    Promise.all(nodes.map(async (node, index) => changes(treesBefore[index] ?? {}, await nodeTreeOf(node))));
  const makeSecret = (name = "first"): Promise<string> => {
    const secret = `--from-literal=${name}=${randomBytes(32).toString("hex")}`;
    return kubectl.run(["create", "secret", "generic", "p2p-mirror-secret", "-n", NAMESPACE, secret]);
  };
  const untilGone = async (): Promise<void> => {
    await kubectl.run(["wait", "--for=delete", "--timeout=90s", `namespace/${NAMESPACE}`]);
  };
  const untilCondition = async ({ name }: KubernetesNode, wanted: string): Promise<Condition> => {
    let found: Condition | undefined;
    await until(
      `${CONDITION_TYPE} of ${name} is ${wanted}`,
      async () => {
        const { status } = await kubectl.get<Node>(["node", name]);
        found = status.conditions.find(({ type }) => type === CONDITION_TYPE);
        return found?.status === wanted;
      },
      SLOW,
    );
    if (found === undefined) throw new TypeError("it was there");
    return found;
  };
  const env = { ...withoutProxies(components("kubernetes").env), KUBECONFIG: cluster.kubeconfig };
  await kubectl.apply(...(await prometheusCrds()));
  for (const { machine } of nodes) await writeHosts(machine.file(CERTS_DIR), README_REGISTRY, upstream.hosts);
  const treesBefore: readonly NodeTree[] = await Promise.all(nodes.map(nodeTreeOf));

  await t.test("the README's commands, as they stand there: installed, proved, and gone again", async (t) => {
    const heading = "## On a cluster";
    const home = t.testdir({
      manifests: t.fixture("symlink", MANIFESTS),
      mirror: { "kustomization.yaml": await documentedBlock("README.md", heading, "yaml") },
    });
    await mirrorLayout(join(home, ".build/image"));
    const skopeo = components("skopeo");
    const { host } = new URL(upstream.url);
    const bash = shell([], { env, cwd: home, timeoutMs: 180_000 });
    // Its registry is reached by another name from here, without TLS; and Debian's package brings a policy.
    const libraries = skopeo.env["LD_LIBRARY_PATH"] ?? "";
    const options = "--insecure-policy --dest-tls-verify=false";
    await bash([
      OPENSSL,
      `skopeo() { LD_LIBRARY_PATH=${libraries} ${skopeo.bin("skopeo")} "$1" ${options} "$2" "\${3/${README_REGISTRY}/${host}}"; }`,
    ]);
    const said = await bash(await documentedLines("README.md", heading));
    t.match(said, "nothing wrong was found");
    for (const image of await mirror.images()) t.match(image, `${README_REGISTRY}/p2p-mirror:`);
    await bash(["kubectl delete -k mirror"]);
    for (const paths of await changed()) t.same(beside(DATA, paths), []);
  });

  await t.test(
    "all components: it waits for its secret, and every Node says that it is in force",
    async (t) => {
      await pushMirror(upstream.url, t.testdir());
      await until(
        "the kinds are known",
        async () => {
          const { code } = await kubectl.attempt(["apply", "--kustomize", overlay("overlays/example")]);
          return code === 0;
        },
        SLOW,
      );
      await makeSecret();
      await mirror.untilReady(100_000);
      await mirror.untilWhole(nodes);
      for (const node of nodes) {
        // A mirror that was alone when its doctor first looked says so for a minute.
        await untilCondition(node, "True");
        const { address } = node;
        const metrics = await (await fetch(`http://${address}:24225/metrics`)).text();
        t.match(metrics, /^p2p_mirror_in_force 1$/m);
        await t.rejects(fetch(`http://${address}:24223/status`), "the status stays on the node");
      }
    },
  );

  await t.test("a node whose containerd goes past the mirror says so, and that it was mended", async (t) => {
    const [node] = nodes;
    if (node === undefined) throw new TypeError("a cluster has a node");
    const file = node.machine.file(FILES.containerd);
    const before = await readFile(file, "utf8");
    const brokenAt = performance.now();
    await writeFile(
      file,
      before.replace(`config_path = "${CERTS_DIR}"`, 'config_path = "/etc/containerd/other"'),
    );
    await node.containerd.restart();
    const condition = await untilCondition(node, "False");
    t.match(condition, { reason: "ConfigPath", message: /\/etc\/containerd\/other.*what to do: / });
    const metrics = await (await fetch(`http://${node.address}:24225/metrics`)).text();
    t.match(metrics, /^p2p_mirror_in_force 0$/m);
    const mendedAt = performance.now();
    await writeFile(file, before);
    await node.containerd.restart();
    t.match(await untilCondition(node, "True"), { reason: "NothingBroken" });
    t.comment(`false after ${seconds(brokenAt)}, true again after ${seconds(mendedAt)}`);
    const about = `involvedObject.kind=Node,involvedObject.name=${node.name},source=p2p-mirror`;
    // They are told after the condition, and listed in no order.
    for (const [type, reason] of [
      ["Warning", "ImageMirrorNotInForce"],
      ["Normal", "ImageMirrorInForce"],
    ]) {
      await until(`an Event ${reason}`, async () => {
        const { items } = await kubectl.get<{ items: readonly Event[] }>([
          "events",
          `--field-selector=${about}`,
        ]);
        return items.some((event) => event.type === type && event.reason === reason);
      });
    }
  });

  await t.test("deleted, nothing of it stays but what was cached", async (t) => {
    await kubectl.run(["delete", "--kustomize", overlay("overlays/example")]);
    await untilGone();
    for (const paths of await changed()) {
      t.ok(paths.includes(DATA), "what was cached");
      t.same(beside(DATA, paths), [], "and nothing else");
    }
    const kinds = (await kubectl.run(["api-resources", "--verbs=list", "--output=name"])).trim();
    const all = ["get", kinds.replaceAll("\n", ","), "--all-namespaces", "--output=name"];
    const objects = (await kubectl.run(all)).split("\n");
    t.ok(objects.includes(`node/${nodes[0]?.name}`));
    // Events about Nodes go by themselves.
    const ours = objects.filter((one) => one.includes("p2p-mirror") && !one.startsWith("event"));
    t.same(ours, [], "nor any object");
  });

  await t.test("the condition of a Node whose mirror was killed goes as documented", async (t) => {
    const withIt = async (): Promise<number> => {
      const { items } = await kubectl.get<{ readonly items: readonly Node[] }>(["nodes"]);
      return items.filter(({ status }) => status.conditions.some(({ type }) => type === CONDITION_TYPE))
        .length;
    };
    t.comment(`${await withIt()} nodes have it after the delete`);
    const left = { type: CONDITION_TYPE, status: "True", reason: "NothingBroken", message: "" };
    const patch = `--patch=${JSON.stringify({ status: { conditions: [left] } })}`;
    await kubectl.run([
      "patch",
      "node",
      nodes[0]?.name ?? "",
      "--subresource=status",
      "--type=strategic",
      patch,
    ]);
    t.ok((await withIt()) > 0);
    const bash = shell([], { env, timeoutMs: 60_000 });
    await bash(await documentedLines("docs/operations.md", "### Conditions that are left"));
    t.equal(await withIt(), 0);
  });

  await t.test("high security: no socket, no token, and nodes that are named find each other", async (t) => {
    const folder = t.testdir();
    await mkdir(folder, { recursive: true });
    const file = { cache_size: "1GiB", cache_min_free: "1%", bootstrap: [`${nodes[0]?.address}:24222`] };
    await writeFile(join(folder, "config.yaml"), stringify(file));
    const kustomization = {
      resources: [relative(folder, overlay("overlays/high-security"))],
      configMapGenerator: [
        { name: "p2p-mirror", namespace: NAMESPACE, behavior: "merge", files: ["config.yaml"] },
      ],
    };
    await writeFile(join(folder, "kustomization.yaml"), stringify(kustomization));
    await kubectl.run(["apply", "--kustomize", folder]);
    await makeSecret();
    await mirror.untilReady(100_000);
    await mirror.untilWhole(nodes);
    for (const node of nodes) {
      const { hosts } = await mirror.status(node);
      t.match(hosts?.[0], { directory: "_default", inForce: true }, node.name);
    }
  });

  await t.test("the removal leaves nothing, whatever was installed", async (t) => {
    // The hard way: nobody has the time to clean up, and here nobody would.
    const killed = ["--force", "--grace-period=0"];
    await kubectl.run(["delete", "daemonset", "p2p-mirror", "-n", NAMESPACE, "--cascade=orphan"]);
    await kubectl.run(["delete", "pods", "--all", "-n", NAMESPACE, ...killed]);
    for (const paths of await changed()) {
      t.ok(paths.includes(DATA));
      const left = beside(DATA, paths);
      t.ok(left.includes(`${CERTS_DIR}/_default/hosts.toml`), "it still names a mirror that is gone");
      t.same(
        left.filter((path) => path !== `${CERTS_DIR}/_default` && !HOSTS_FILE.test(path)),
        [],
        "nothing else stays",
      );
    }
    await kubectl.run(["apply", "--kustomize", overlay("uninstall/base")]);
    await mirror.untilReady(100_000);
    for (const paths of await changed()) t.same(paths, [], "byte for byte");
    await kubectl.run(["delete", "--kustomize", overlay("uninstall/base")]);
    await untilGone();
    for (const paths of await changed()) t.same(paths, []);
  });
}
