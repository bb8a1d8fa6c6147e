/** The manifests' NetworkPolicies where somebody enforces them: what is not needed is refused, on the wire. */
import { join } from "node:path";
import t, { type Test } from "tap";
import { pushImage } from "./rig/images.ts";
import { API_ADDRESS, API_PORT } from "./rig/kubernetes/addresses.ts";
import { CLUSTER_COMPONENTS, REGISTRY, startCluster } from "./rig/kubernetes/cluster.ts";
import { busyboxImage } from "./rig/kubernetes/images.ts";
import { MANIFESTS, NAMESPACE } from "./rig/kubernetes/installed-mirror.ts";
import { enforcePolicies, POLICY_COMPONENTS } from "./rig/kubernetes/network-policy.ts";
import { podOf } from "./rig/kubernetes/workloads.ts";
import { need } from "./rig/need.ts";
import { until } from "./rig/until.ts";

/** Of the mesh, and those that nobody but the node itself is to reach: of containerd's endpoint and of administration. */
const MESH = [24_221, 24_222];
const OWN = [24_220, 24_223];

/** Who is in which namespace, and with which labels. */
const PODS = {
  // Stands for all that is not the mirror's: its namespace has no policy.
  outside: { namespace: "default", labels: {} },
  // What somebody put where only the mirror is to be.
  other: { namespace: NAMESPACE, labels: { app: "other" } },
  // The mirror without the host's network, to which policies do not apply.
  mirror: { namespace: NAMESPACE, labels: { "app.kubernetes.io/name": "p2p-mirror" } },
} as const;
type Name = keyof typeof PODS;
const NAMES = Object.keys(PODS) as Name[];

/** Says which of the connections could be made. What is refused may be dropped without a word as well. */
const TRY = 'try() { /bin/busybox nc -w 3 "$2" "$3" </dev/null >/dev/null 2>&1 && echo "$1 $3"; }';
const IMAGE = `${REGISTRY}/busybox:1`;

const components = await need(t, {
  machines: true,
  components: [...CLUSTER_COMPONENTS, ...POLICY_COMPONENTS, "containerd-2.x", "busybox"],
});
if (components !== undefined) {
  const cluster = await startCluster({ components, nodes: [{ containerd: "2.x" }] });
  t.teardown(() => cluster[Symbol.asyncDispose]());
  const { kubectl, nodes, upstream } = cluster;
  const [node] = nodes;
  if (node === undefined) throw new TypeError("a node was asked for");
  const controller = await enforcePolicies(cluster, node, components);
  const content = await busyboxImage(components("busybox"), { seed: "policy" });
  await pushImage(content, { registry: upstream.url, repository: "busybox", tags: ["1"] });

  await kubectl.run(["apply", "--kustomize", join(MANIFESTS, "namespace")]);
  await until("Pods can be made", async () => {
    const args = ["get", "serviceaccount", "default", `--namespace=${NAMESPACE}`];
    return (await kubectl.attempt(args)).code === 0;
  });
  await kubectl.apply(...NAMES.map(serverOf));
  const addresses = new Map<Name, string>();
  for (const name of NAMES) {
    const { namespace } = PODS[name];
    await kubectl.run([
      "wait",
      "--for=condition=Ready",
      "--timeout=60s",
      `--namespace=${namespace}`,
      `pod/${name}`,
    ]);
    const pod = await kubectl.get<Pod>(["pod", name, `--namespace=${namespace}`]);
    addresses.set(name, pod.status.podIP);
  }
  const wanted = connections();

  /** Those that are open, each as "from to port". */
  const open = async (): Promise<string[]> => {
    const found: string[] = [];
    for (const from of NAMES) {
      const targets = wanted.filter((one) => one.from === from);
      const tries = targets.map(({ to, port }) => `try ${to} ${addressOf(to)} ${port} &`);
      const script = [TRY, ...tries, "wait"].join("\n");
      const args = [`--namespace=${PODS[from].namespace}`, from, "--", "/bin/busybox", "sh", "-c", script];
      const said = await kubectl.run(["exec", ...args]);
      for (const line of said.split("\n")) if (line !== "") found.push(`${from} ${line}`);
    }
    return found.toSorted();
  };
  const addressOf = (to: Target): string => (to === "api" ? API_ADDRESS : (addresses.get(to) ?? ""));
  const isOpen = async (t: Test, expected: readonly Connection[]): Promise<void> => {
    const lines = expected.map(({ from, to, port }) => `${from} ${to} ${port}`).toSorted();
    let last: string[] = [];
    const probe = async (): Promise<boolean> => {
      last = await open();
      return last.join() === lines.join();
    };
    const detail = (): string => `open: ${last.join(", ")}\n${controller.log().slice(-4000)}`;
    await until("what is to be open is, and nothing else", probe, {
      timeoutMs: 90_000,
      everyMs: 500,
      detail,
    });
    t.same(last, lines);
  };

  const policies = ["--filename", join(MANIFESTS, "base/network-policy.yaml"), `--namespace=${NAMESPACE}`];
  await t.test("without a policy everything is open", (t) => isOpen(t, wanted));
  await t.test("with the policies only what is needed", async (t) => {
    await kubectl.run(["apply", ...policies]);
    await isOpen(t, wanted.filter(isNeeded));
  });
  await t.test("it was the policies", async (t) => {
    await kubectl.run(["delete", ...policies]);
    await isOpen(t, wanted);
    t.ok(controller.running);
  });
}

type Target = Name | "api";
interface Connection {
  readonly from: Name;
  readonly to: Target;
  readonly port: number;
}

/** From each Pod to every port of the others, and to the API server. */
function connections(): Connection[] {
  return NAMES.flatMap((from) => [
    { from, to: "api" as const, port: API_PORT },
    ...NAMES.filter((to) => to !== from).flatMap((to) =>
      [...MESH, ...OWN].map((port) => ({ from, to, port })),
    ),
  ]);
}

/** Nobody reaches the other one, and it nobody; the mirror is reached at the ports of the mesh, and reaches what it wants. */
function isNeeded({ from, to, port }: Connection): boolean {
  if (from === "other" || to === "other") return false;
  return to !== "mirror" || MESH.includes(port);
}

/** Takes connections at all the ports. */
function serverOf(name: Name): object {
  const { namespace, labels } = PODS[name];
  const listen = [...MESH, ...OWN].map((port) => `/bin/busybox nc -ll -p ${port} -e /bin/busybox true &`);
  const script = `${listen.join("\n")}\nwait`;
  const pod = podOf(name, { image: IMAGE, command: ["/bin/busybox", "sh", "-c", script] });
  return { ...pod, metadata: { name, namespace, labels } };
}

interface Pod {
  readonly status: { readonly podIP: string };
}
