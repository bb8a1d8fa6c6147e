/** Rolling updates of a cluster that pulls: to another release and back, of the secret, with a setting that is wrong. */
import { copyFile, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import t, { type Test } from "tap";
import { documentedLines, OPENSSL, shell } from "./manifests/documented.ts";
import { CLUSTER_COMPONENTS, startCluster } from "./rig/kubernetes/cluster.ts";
import {
  installedMirror,
  MANIFESTS,
  NAMESPACE,
  pushLastRelease,
  pushMirror,
} from "./rig/kubernetes/installed-mirror.ts";
import type { KubernetesNode } from "./rig/kubernetes/node.ts";
import { createPulls, type Pull } from "./rig/kubernetes/pulls.ts";
import { need } from "./rig/need.ts";
import { withoutProxies } from "./rig/process.ts";
import { until } from "./rig/until.ts";

const MIB = 1024 * 1024;
/** How long a mesh may take to be whole again. */
const WHOLE_MS = 30_000;

/** Long enough that a mirror is replaced meanwhile: 10 s when nobody else pulls. */
const LONG = { layers: [24 * MIB, 16 * MIB], rate: 4 * MIB };

interface ContainerStatus {
  readonly ready: boolean;
  readonly state: { readonly terminated?: { readonly message?: string } };
  readonly lastState: { readonly terminated?: { readonly message?: string } };
}

interface PodStatus {
  readonly initContainerStatuses?: readonly ContainerStatus[];
  readonly containerStatuses?: readonly ContainerStatus[];
}

interface Event {
  readonly involvedObject: { readonly name: string };
  readonly source: { readonly host: string };
  readonly firstTimestamp: string;
}

/** What containers of a Pod have ended with, as `kubectl describe pod` shows it. */
const lastWords = ({ initContainerStatuses = [], containerStatuses = [] }: PodStatus): readonly string[] =>
  [...initContainerStatuses, ...containerStatuses]
    .flatMap(({ state, lastState }) => [state.terminated?.message, lastState.terminated?.message])
    .filter((message) => message !== undefined);

/** Of the documented lines of a rotation. */
const isStep = (line: string): boolean => line.startsWith("put ");

/** What Pods of one of two meshes have: nodes with or without the label `mesh`, and addresses of the other mesh's mirrors. */
const side = (operator: "Exists" | "DoesNotExist", others: readonly KubernetesNode[]): object => {
  const terms = [{ matchExpressions: [{ key: "mesh", operator }] }];
  const nodeAffinity = { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms: terms } };
  const bootstrap = others.map(({ address }) => `${address}:24222`).join(",");
  const env = [{ name: "P2P_MIRROR_BOOTSTRAP", value: bootstrap }];
  return { template: { spec: { affinity: { nodeAffinity }, containers: [{ name: "p2p-mirror", env }] } } };
};

const components = await need(t, {
  machines: true,
  components: [...CLUSTER_COMPONENTS, "containerd-1.7", "containerd-2.x"],
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

  const pulls = createPulls(cluster);
  const podsOf = (): Promise<string[]> => Promise.all(nodes.map((node) => mirror.podOn(node)));
  /** Of the pulls, those that were under way on a node when kubelet ended its mirror, one of these Pods. */
  const cutShort = async (made: readonly Pull[], pods: readonly string[]): Promise<readonly Pull[]> => {
    const ends = await until("the kubelets have said when they ended them", async () => {
      const query = ["events", `--namespace=${NAMESPACE}`, "--field-selector=reason=Killing"];
      const { items } = await kubectl.get<{ items: readonly Event[] }>(query);
      const found = items.filter(({ involvedObject }) => pods.includes(involvedObject.name));
      return pods.every((pod) => found.some(({ involvedObject }) => involvedObject.name === pod)) && found;
    });
    return made.filter(({ node, began, ended }) =>
      ends.some(({ source, firstTimestamp }) => {
        // It has whole seconds.
        const at = Date.parse(firstTimestamp);
        return source.host === node.name && began < at && ended > at + 1_000;
      }),
    );
  };
  /** A kustomization of the cluster's own. */
  const apply = async (folder: string, kustomization: object): Promise<void> => {
    const type = { apiVersion: "kustomize.config.k8s.io/v1beta1", kind: "Kustomization" };
    await writeFile(path.join(folder, "kustomization.yaml"), JSON.stringify({ ...type, ...kustomization }));
    await kubectl.run(["apply", "--kustomize", folder]);
  };
  const undoUpdate = async (): Promise<void> => {
    await kubectl.run(["rollout", "undo", `--namespace=${NAMESPACE}`, "daemonset/p2p-mirror"]);
  };
  const podStatuses = async (): Promise<readonly PodStatus[]> =>
    (await kubectl.get<{ items: { status: PodStatus }[] }>(["pods", `--namespace=${NAMESPACE}`])).items.map(
      ({ status }) => status,
    );
  const idsOf = (): Promise<string[]> =>
    Promise.all(nodes.map(async (node) => (await mirror.status(node)).node.id));
  /** Looks at what an update must not change; the answer tells whether it has. */
  const whatIsKept = async (): Promise<(t: Test) => Promise<void>> => {
    const before = await idsOf();
    const held = await pulls.newImage([8 * MIB]);
    await pulls.pull(first, held);
    return async (t) => {
      t.same(await idsOf(), before, "identities survive");
      upstream.forget();
      await pulls.pull(second, held);
      t.ok(upstream.bytesOf(held) < MIB, "and so does what was held");
    };
  };

  const bash = shell(["NEW", "OLD"], {
    env: { ...withoutProxies(components("kubernetes").env), KUBECONFIG: cluster.kubeconfig },
    timeoutMs: 180_000,
  });
  await bash([OPENSSL]);

  const home = t.testdir({ image: {}, overlay: {} });
  const thisRelease = await pushMirror(upstream.url, path.join(home, "image"));
  const lastRelease = await pushLastRelease(upstream.url, path.join(home, "last"));
  const overlay = path.join(home, "overlay");
  await copyFile(`${MANIFESTS}/overlays/dev/config.yaml`, path.join(overlay, "config.yaml"));
  const applyOverlay = (more: object = {}): Promise<void> =>
    apply(overlay, {
      resources: [path.relative(overlay, `${MANIFESTS}/base`)],
      configMapGenerator: [
        { name: "p2p-mirror", namespace: NAMESPACE, behavior: "merge", files: ["config.yaml"] },
      ],
      ...more,
    });
  const [name, newTag] = lastRelease.split(":");
  await applyOverlay();
  await bash(await documentedLines("docs/operations.md", "## The secret"));
  const { data } = await kubectl.get<{ data: { first: string } }>([
    "secret",
    `--namespace=${NAMESPACE}`,
    "p2p-mirror-secret",
  ]);
  const oldSecret = Buffer.from(data.first, "base64").toString().trim();
  await mirror.untilReady();
  await mirror.untilWhole(nodes);

  await t.test("back to the last release during pulls, and from that one to this", async (t) => {
    const isKept = await whatIsKept();
    for (const [what, change, wanted] of [
      ["back", () => applyOverlay({ images: [{ name, newTag }] }), lastRelease],
      ["forward", undoUpdate, thisRelease],
    ] as const) {
      const pods = await podsOf();
      const work = async (): Promise<void> => {
        await change();
        await mirror.untilReady(180_000);
      };
      const { made } = await pulls.during(nodes, work, LONG);
      const cut = await cutShort(made, pods);
      t.comment(
        `${what}: ${made.length} pulls, ${cut.length} of them while their node's mirror was replaced`,
      );
      t.ok(cut.length > 0);
      t.same([...new Set(await mirror.images())], [wanted], what);
      await mirror.untilWhole(nodes, WHOLE_MS);
      t.ok((await pulls.bytesFromUpstream(first, third)) < MIB, "what one has, the others get from it");
    }
    await isKept(t);
    // The overlay that was applied last is not what runs.
    await applyOverlay();
    t.same([...new Set(await mirror.images())], [thisRelease]);
  });

  await t.test("three rolling updates during pulls: the secret is changed as documented", async (t) => {
    const isKept = await whatIsKept();
    const lines = await documentedLines("docs/operations.md", "### Rotation");
    await bash(lines.filter((line) => !isStep(line)));
    const steps = lines.filter(isStep);
    t.equal(steps.length, 3);
    for (const step of steps) {
      // The next mirror is replaced when a kubelet says that the last one is there: all but one wait.
      const halfway = async (): Promise<void> => {
        const leaving = async (): Promise<KubernetesNode | undefined> => {
          const names = await mirror.leaving();
          return nodes.find(({ name }) => names.includes(name));
        };
        const replaced = await until("one is to go", leaving, { timeoutMs: 60_000, everyMs: 250 });
        await mirror.startedAnew(replaced, () => replaced.kubelet.thaw());
        await mirror.untilWhole(nodes, WHOLE_MS);
        const other = replaced === first ? second : first;
        t.ok((await pulls.bytesFromUpstream(replaced, other)) < MIB, `halfway through ${step}`);
        t.ok((await pulls.bytesFromUpstream(other, replaced)) < MIB, "and the other way round");
      };
      for (const { kubelet } of nodes) kubelet.freeze();
      const thaw = (): void => nodes.forEach(({ kubelet }) => kubelet.thaw());
      const work = async (): Promise<void> => {
        await Promise.all([bash([step]), halfway().finally(thaw)]);
      };
      await pulls.during(nodes, work);
      await mirror.untilWhole(nodes, WHOLE_MS);
      t.ok((await pulls.bytesFromUpstream(first, third)) < MIB, "when all have been replaced");
    }
    await isKept(t);
  });

  await t.test(
    "an update with a setting that is wrong stops at the first node, which says why",
    async (t) => {
      const config = path.join(overlay, "config.yaml");
      const right = await readFile(config, "utf8");
      const applyConfig = async (text: string): Promise<void> => {
        await writeFile(config, text);
        await kubectl.run(["apply", "--kustomize", overlay]);
      };
      await applyConfig(`${right}limit_in: much\n`);
      const why = await until(
        "a Pod says it",
        async () => (await podStatuses()).flatMap(lastWords).find((words) => words.includes("limit_in")),
        { timeoutMs: 90_000, everyMs: 250 },
      );
      t.match(why, /^p2p-mirror: \S+config\.yaml:\d+: limit_in: "much" is not valid: .+\n?$/);
      const ready = (await podStatuses()).filter(
        ({ containerStatuses = [] }) => containerStatuses[0]?.ready === true,
      );
      t.equal(ready.length, nodes.length - 1, "the others run as before");
      await applyConfig(right);
      await mirror.untilReady(90_000);
      await mirror.untilWhole(nodes, WHOLE_MS);
    },
  );

  await t.test("who has only the old secret is in another mesh: they do not mix", async (t) => {
    const other = t.testdir({});
    const theirs = await pulls.newImage([8 * MIB]);
    await pulls.pull(first, theirs);
    // One of the nodes changes sides: it has the secret of before.
    await kubectl.run(["label", "node", third.name, "mesh=other"]);
    const patch = JSON.stringify({ spec: side("DoesNotExist", [third]) });
    await kubectl.run(["patch", "daemonset", "p2p-mirror", `--namespace=${NAMESPACE}`, `--patch=${patch}`]);
    await until("the first mesh has left it", async () => (await mirror.podOn(third)) === "", {
      timeoutMs: 90_000,
      everyMs: 250,
    });
    await mirror.untilReady(120_000);
    await apply(other, {
      resources: [path.relative(other, `${MANIFESTS}/overlays/dev`)],
      namespace: "other-mesh",
      secretGenerator: [
        {
          name: "p2p-mirror-secret",
          namespace: NAMESPACE,
          behavior: "replace",
          literals: [`first=${oldSecret}`],
        },
      ],
      patches: [
        {
          target: { kind: "DaemonSet" },
          patch: JSON.stringify({
            apiVersion: "apps/v1",
            kind: "DaemonSet",
            metadata: { name: "p2p-mirror" },
            spec: side("Exists", [first, second]),
          }),
        },
      ],
    });
    const rollout = ["rollout", "status", "--namespace=other-mesh", "--timeout=90s", "daemonset/p2p-mirror"];
    await kubectl.run(rollout);
    // Only one that has just started tries at once.
    await mirror.startedAnew(first, () => mirror.kill(first));
    const refused = [
      [third, [first, second]],
      [first, [third]],
    ] as const;
    for (const [node, others] of refused) {
      await until(
        `${node.name} has tried to join the other mesh`,
        async () => {
          const { bootstrap = [] } = await mirror.status(node);
          return (
            bootstrap.length === others.length && bootstrap.every(({ reason }) => reason === "other-secret")
          );
        },
        { timeoutMs: 60_000, everyMs: 250 },
      );
    }
    await mirror.untilWhole([first, second], WHOLE_MS);
    t.same((await mirror.status(third)).peers, []);
    upstream.forget();
    await pulls.pull(third, theirs);
    t.ok(upstream.bytesOf(theirs) > 8 * MIB, "what the first mesh holds comes from upstream");
    t.ok((await pulls.bytesFromUpstream(third, first)) > 8 * MIB, "and what the other holds");
  });
}
