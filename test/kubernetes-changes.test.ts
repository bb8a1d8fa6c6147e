/** What happens to a cluster with the mirror in it: updates, power cuts, restarts, nodes that come and go, a lost control plane. */
import { copyFile, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import t, { type Test } from "tap";
import { documentedLines, shell } from "./manifests/documented.ts";
import { createCri } from "./rig/cri.ts";
import { makeImage, pushImage } from "./rig/images.ts";
import { CLUSTER_COMPONENTS, REGISTRY, startCluster } from "./rig/kubernetes/cluster.ts";
import {
  installedMirror,
  MANIFESTS,
  NAMESPACE,
  pushLastRelease,
  pushMirror,
} from "./rig/kubernetes/installed-mirror.ts";
import { CONTAINERD_SOCKET } from "./rig/kubernetes/node-files.ts";
import type { KubernetesNode } from "./rig/kubernetes/node.ts";
import { need } from "./rig/need.ts";
import { withoutProxies } from "./rig/process.ts";
import { until } from "./rig/until.ts";

const MIB = 1024 * 1024;
/** How long a mesh may take to be whole again. */
const WHOLE_MS = 30_000;

/** As kubelet does it, once: a pull that fails fails the test. */
const pull = async (node: KubernetesNode, repository: string): Promise<void> => {
  await using cri = createCri(node.machine.file(CONTAINERD_SOCKET));
  await cri.pull(`${REGISTRY}/${repository}:1`);
};

interface ContainerStatus {
  readonly ready: boolean;
  readonly state: { readonly terminated?: { readonly message?: string } };
  readonly lastState: { readonly terminated?: { readonly message?: string } };
}

interface PodStatus {
  readonly initContainerStatuses?: readonly ContainerStatus[];
  readonly containerStatuses?: readonly ContainerStatus[];
}

/** What containers of a Pod have ended with, as `kubectl describe pod` shows it. */
const lastWords = ({ initContainerStatuses = [], containerStatuses = [] }: PodStatus): readonly string[] =>
  [...initContainerStatuses, ...containerStatuses]
    .flatMap(({ state, lastState }) => [state.terminated?.message, lastState.terminated?.message])
    .filter((message) => message !== undefined);

/** Of the documented lines of a rotation. */
const isStep = (line: string): boolean => line.startsWith("put ");

/** Nodes with or without the label `mesh`, by the operator of a node affinity. */
const only = (operator: string): object => ({
  affinity: {
    nodeAffinity: {
      requiredDuringSchedulingIgnoredDuringExecution: {
        nodeSelectorTerms: [{ matchExpressions: [{ key: "mesh", operator }] }],
      },
    },
  },
});

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

  let images = 0;
  /** The name of an image that nobody has yet. */
  const newImage = async (layers: readonly number[] = [2 * MIB]): Promise<string> => {
    const repository = `image-${++images}`;
    await pushImage(makeImage({ seed: repository, layers }), {
      registry: upstream.url,
      repository,
      tags: ["1"],
    });
    return repository;
  };
  /** New images are pulled on all these nodes at once, one after the other, until the work is done. */
  const pullDuring = async <T>(
    on: readonly KubernetesNode[],
    work: () => Promise<T>,
  ): Promise<{ readonly pulls: number; readonly result: T }> => {
    const done = new AbortController();
    const working = work().finally(() => done.abort());
    let pulls = 0;
    const pulling = async (): Promise<void> => {
      do {
        const repository = await newImage();
        await Promise.all(on.map((node) => pull(node, repository)));
        pulls += on.length;
      } while (!done.signal.aborted);
    };
    const [result] = await Promise.all([working, pulling()]);
    return { pulls, result };
  };
  /** Bytes that upstream sends while an image that `from` has is pulled by `to`. */
  const bytesFromUpstream = async (from: KubernetesNode, to: KubernetesNode): Promise<number> => {
    const repository = await newImage([8 * MIB]);
    await pull(from, repository);
    upstream.forget();
    await pull(to, repository);
    return upstream.bytesOf(repository);
  };
  /** Resolves when another mirror than that of before is ready there. */
  const startedAnew = async (node: KubernetesNode, cause: () => void | Promise<void>): Promise<void> => {
    const { startedAt } = (await mirror.status(node)).node;
    await cause();
    const isNew = async (): Promise<boolean> =>
      (await mirror.isReady(node)) && (await mirror.status(node)).node.startedAt !== startedAt;
    await until("kubelet has started a new mirror", isNew, {
      timeoutMs: 120_000,
      everyMs: 250,
      detail: () => mirror.words(node),
    });
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
    const held = await newImage([8 * MIB]);
    await pull(first, held);
    return async (t) => {
      t.same(await idsOf(), before, "identities survive");
      upstream.forget();
      await pull(second, held);
      t.ok(upstream.bytesOf(held) < MIB, "and so does what was held");
    };
  };

  const kubernetes = components("kubernetes");
  const PATH = `${path.dirname(kubernetes.bin("kubectl"))}:${process.env["PATH"]}`;
  const bash = shell(["NEW", "OLD"], {
    env: { ...withoutProxies(kubernetes.env), PATH, KUBECONFIG: cluster.kubeconfig },
    timeoutMs: 180_000,
  });
  // Not every machine has it.
  await bash(["command -v openssl >&2 || openssl() { od -An -v -tx1 -N32 /dev/urandom | tr -d ' \\n'; }"]);

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
  await applyOverlay({ images: [{ name, newTag }] });
  await bash(await documentedLines("operations.md", "## The secret"));
  const { data } = await kubectl.get<{ data: { first: string } }>([
    "secret",
    `--namespace=${NAMESPACE}`,
    "p2p-mirror-secret",
  ]);
  const oldSecret = Buffer.from(data.first, "base64").toString().trim();
  await mirror.untilReady();
  await mirror.untilWhole(nodes);

  await t.test("from the last release to this one during pulls, back, and forward again", async (t) => {
    const isKept = await whatIsKept();
    for (const [what, change, wanted] of [
      ["forward", applyOverlay, thisRelease],
      ["back", undoUpdate, lastRelease],
      ["forward again", applyOverlay, thisRelease],
    ] as const) {
      const { pulls } = await pullDuring(nodes, async () => {
        await change();
        await mirror.untilReady(120_000);
      });
      t.comment(`${what}: ${pulls} pulls`);
      t.same([...new Set(await mirror.images())], [wanted], what);
      await mirror.untilWhole(nodes, WHOLE_MS);
      t.ok((await bytesFromUpstream(first, third)) < MIB, "what one has, the others get from it");
    }
    await isKept(t);
  });

  await t.test("three rolling updates during pulls: the secret is changed as documented", async (t) => {
    const isKept = await whatIsKept();
    const lines = await documentedLines("operations.md", "### Rotation");
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
        await startedAnew(replaced, () => replaced.kubelet.thaw());
        await mirror.untilWhole(nodes, WHOLE_MS);
        const other = replaced === first ? second : first;
        t.ok((await bytesFromUpstream(replaced, other)) < MIB, `halfway through ${step}`);
        t.ok((await bytesFromUpstream(other, replaced)) < MIB, "and the other way round");
      };
      for (const { kubelet } of nodes) kubelet.freeze();
      const thaw = (): void => nodes.forEach(({ kubelet }) => kubelet.thaw());
      const { pulls } = await pullDuring(nodes, async () => {
        await Promise.all([bash([step]), halfway().finally(thaw)]);
      });
      t.comment(`${pulls} pulls during the update`);
      await mirror.untilWhole(nodes, WHOLE_MS);
      t.ok((await bytesFromUpstream(first, third)) < MIB, "when all have been replaced");
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

  await t.test("a node loses power and comes back", async (t) => {
    await pullDuring([first, second], async () => {
      await third.cutPower();
      await mirror.untilWhole([first, second], WHOLE_MS);
      await third.boot();
      await until("its mirror is ready again", () => mirror.isReady(third), {
        timeoutMs: 120_000,
        everyMs: 250,
      });
    });
    await mirror.untilWhole(nodes, WHOLE_MS);
    t.ok((await bytesFromUpstream(first, third)) < MIB, "it gets from others what they have");
  });

  await t.test("containerd and kubelet are restarted", async (t) => {
    for (const node of [first, second]) {
      await pullDuring([third], async () => {
        await node.containerd.restart();
        await node.kubelet.restart();
      });
      await cluster.untilReady();
      await mirror.untilWhole(nodes, WHOLE_MS);
      t.ok((await bytesFromUpstream(node, third)) < MIB, "its mirror knows what containerd has got since");
    }
  });

  await t.test("a node joins, is drained and deleted", async (t) => {
    const { result: fourth } = await pullDuring(nodes, async () => {
      const node = await cluster.addNode({ containerd: "2.x" });
      await until("it has a mirror", () => mirror.isReady(node), { timeoutMs: 60_000, everyMs: 250 });
      return node;
    });
    await mirror.untilWhole([...nodes, fourth], WHOLE_MS);
    t.ok((await bytesFromUpstream(first, fourth)) < MIB, "it is a member at once");
    const only = await newImage([8 * MIB]);
    await pull(fourth, only);
    await pullDuring(nodes, async () => {
      await kubectl.run(["drain", "--ignore-daemonsets", "--force", "--timeout=60s", fourth.name]);
      await kubectl.run(["delete", "node", fourth.name]);
      await fourth.cutPower();
    });
    await mirror.untilWhole(nodes, WHOLE_MS);
    await pull(first, only);
  });

  await t.test("the cluster's DNS and API server are down", async (t) => {
    await Promise.all([controlPlane.dns.kill(), controlPlane.apiServer.kill()]);
    t.ok((await bytesFromUpstream(second, first)) < MIB, "pulls go on");
    await startedAnew(first, () => mirror.kill(first));
    await mirror.untilWhole(nodes, WHOLE_MS);
    t.ok((await bytesFromUpstream(second, first)) < MIB, "it has found the others by what it remembered");
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

  await t.test("who has only the old secret is in another mesh: they do not mix", async (t) => {
    const other = t.testdir({});
    const theirs = await newImage([8 * MIB]);
    await pull(first, theirs);
    // One of the nodes changes sides: it has the secret of before, and is told where the mirrors of the first mesh are.
    await kubectl.run(["label", "node", third.name, "mesh=other"]);
    const patch = JSON.stringify({ spec: { template: { spec: only("DoesNotExist") } } });
    await kubectl.run(["patch", "daemonset", "p2p-mirror", `--namespace=${NAMESPACE}`, `--patch=${patch}`]);
    await until("the first mesh has left it", async () => (await mirror.podOn(third)) === "", {
      timeoutMs: 90_000,
      everyMs: 250,
    });
    await mirror.untilReady(120_000);
    const bootstrap = [first, second].map(({ address }) => `${address}:24222`).join(",");
    const env = [{ name: "P2P_MIRROR_BOOTSTRAP", value: bootstrap }];
    const spec = { ...only("Exists"), containers: [{ name: "p2p-mirror", env }] };
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
            spec: { template: { spec } },
          }),
        },
      ],
    });
    const rollout = ["rollout", "status", "--namespace=other-mesh", "--timeout=90s", "daemonset/p2p-mirror"];
    await kubectl.run(rollout);
    await until(
      "it has tried to join the first mesh",
      async () => {
        const { bootstrap = [] } = await mirror.status(third);
        return bootstrap.length === 2 && bootstrap.every(({ reason }) => reason === "other-secret");
      },
      { timeoutMs: 60_000, everyMs: 250 },
    );
    t.same((await mirror.status(third)).peers, []);
    await mirror.untilWhole([first, second], WHOLE_MS);
    upstream.forget();
    await pull(third, theirs);
    t.ok(upstream.bytesOf(theirs) > 8 * MIB, "what the first mesh holds comes from upstream");
  });
}
