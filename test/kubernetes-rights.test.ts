/** The manifests before a real API server, and what it lets a mirror do: what it needs, and nothing else. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { silentLogger, systemClock } from "@p2p-mirror/shared";
import t from "tap";
import type { ApiRequest, KubernetesApi } from "../packages/p2p-mirror/src/kubernetes/api-client.ts";
import { endpointsOf } from "../packages/p2p-mirror/src/kubernetes/endpoint-slices.ts";
import { NodeCondition } from "../packages/p2p-mirror/src/kubernetes/node-condition.ts";
import type { DoctorReport } from "../packages/p2p-mirror/src/status.ts";
import { mirrorOn, nodeNamed, tokenFileOf } from "./manifests/account.ts";
import { prometheusCrds } from "./manifests/crds.ts";
import { kustomizations, MANIFESTS } from "./manifests/kustomize.ts";
import { CLUSTER_COMPONENTS, startCluster } from "./rig/kubernetes/cluster.ts";
import { need } from "./rig/need.ts";
import { until } from "./rig/until.ts";

interface Node {
  readonly status: { readonly conditions?: readonly { readonly type: string; readonly status: string }[] };
}

/** Who they are, and what they may. */
const OF_EVERY_ACCOUNT = [
  "selfsubjectaccessreviews.authorization.k8s.io [] [] [create]",
  "selfsubjectreviews.authentication.k8s.io [] [] [create]",
  "selfsubjectrulesreviews.authorization.k8s.io [] [] [create]",
];

/** Of a line of `kubectl auth can-i --list`: a right to a URL, not to objects. */
const isUrl = (line: string): boolean => line.startsWith("[/");

const { signal } = new AbortController();
const MERGE = "application/strategic-merge-patch+json";
const reportOf = (...what: string[]): DoctorReport => ({
  checkedAt: "",
  skipped: [],
  findings: what.map((one) => ({ check: "canary", severity: "broken", what: one, why: "w", fix: "f" })),
});

const components = await need(t, { machines: true, components: CLUSTER_COMPONENTS });
if (components !== undefined) {
  const cluster = await startCluster({ components, nodes: [] });
  t.teardown(() => cluster[Symbol.asyncDispose]());
  const { kubectl } = cluster;
  await kubectl.apply(...(await prometheusCrds()), nodeNamed("node-1"), nodeNamed("node-2"));
  await kubectl.run([
    "wait",
    "--for=condition=Established",
    "--timeout=60s",
    "crd/podmonitors.monitoring.coreos.com",
    "crd/prometheusrules.monitoring.coreos.com",
  ]);

  const { version } = components("kubernetes");
  await t.test(`every manifest is one that the API server of ${version} takes`, async (t) => {
    t.match(await kubectl.run(["get", "--raw=/version"]), `"gitVersion": "v${version}"`);
    await kubectl.run(["apply", "--kustomize", join(MANIFESTS, "namespace")]);
    for (const folder of await kustomizations()) {
      const args = ["apply", "--dry-run=server", "--validate=strict", "--kustomize", join(MANIFESTS, folder)];
      const { code, stderr } = await kubectl.attempt(args);
      t.equal(code, 0, `${folder}: ${stderr}`);
      t.notMatch(stderr, /warning/i, `${folder}: also without a warning`);
    }
  });

  await t.test("a mirror before the API server", async (t) => {
    await kubectl.run(["apply", "--kustomize", join(MANIFESTS, "overlays/example")]);
    const folder = t.testdir();
    const [one, two] = [await mirrorOn(cluster, "node-1", folder), await mirrorOn(cluster, "node-2", folder)];

    // Roles and policies count some time after they were made.
    const mine = { conditions: [{ type: "ImageMirrorInForce", status: "True" }] };
    const isRefused = async (node: string): Promise<boolean> =>
      (await refusal(two, patchOf(node, mine))) !== undefined;
    await until("the role is in force", async () => !(await isRefused("node-2")));
    await until("the policy is in force", async () => isRefused("node-1"), { timeoutMs: 60_000 });

    await t.test("a mirror lists those that run one", async (t) => {
      t.same(await endpointsOf(one, { namespace: "p2p-mirror", name: "p2p-mirror" }, signal), []);
      t.equal(await refusal(one, get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices")), 403);
    });

    await t.test("it says of its own node what the doctor finds, and takes it back", async (t) => {
      const condition = new NodeCondition("node-1", { api: one, clock: systemClock, logger: silentLogger() });
      await condition.start();
      const stateOf = async (): Promise<string | undefined> => {
        const { status } = await kubectl.get<Node>(["node", "node-1"]);
        return status.conditions?.find(({ type }) => type === "ImageMirrorInForce")?.status;
      };
      await condition.tell(reportOf());
      t.equal(await stateOf(), "True");
      await condition.tell(reportOf("pulls go past the mirror"));
      t.equal(await stateOf(), "False");
      const described = await kubectl.run(["describe", "node", "node-1"]);
      t.match(described, /ImageMirrorInForce +False .*Canary +pulls go past the mirror; what to do: f/);
      t.match(described, /Warning +ImageMirrorNotInForce .*Canary: pulls go past the mirror/);
      await condition.close();
      t.equal(await stateOf(), undefined);
    });

    await t.test("its account has these rights, and what every account has", async (t) => {
      const token = await readFile(tokenFileOf("node-1", folder), "utf8");
      const rightsIn = async (namespace: string): Promise<string[]> => {
        const list = [
          "auth",
          "can-i",
          "--list",
          "--no-headers",
          `--namespace=${namespace}`,
          `--token=${token}`,
        ];
        const lines = (await kubectl.run(list)).split("\n");
        // Resources, URLs that are none, names of resources, verbs.
        return lines.map((line) => line.replaceAll(/ +/g, " ").trim()).filter((line) => line !== "");
      };
      for (const [namespace, own] of [
        ["p2p-mirror", ["endpointslices.discovery.k8s.io [] [] [list]", "nodes/status [] [] [patch]"]],
        ["default", ["events [] [] [create]", "nodes/status [] [] [patch]"]],
        ["kube-system", ["nodes/status [] [] [patch]"]],
      ] as const) {
        const rights = await rightsIn(namespace);
        const wanted = [...own, ...OF_EVERY_ACCOUNT].toSorted();
        t.same(rights.filter((line) => !isUrl(line)).toSorted(), wanted, namespace);
        const written = rights.filter((line) => isUrl(line) && !line.endsWith(" [get]"));
        t.same(written, [], `${namespace}: URLs that are no objects are read only`);
      }
    });

    await t.test("what it does not need is refused", async (t) => {
      const wrong: [string, ApiRequest][] = [
        ["another node's condition", patchOf("node-2", mine)],
        ["another condition", patchOf("node-1", { conditions: [{ type: "Ready", status: "True" }] })],
        ["capacity", patchOf("node-1", { capacity: { "example.com/gpu": "8" } })],
        ["addresses", patchOf("node-1", { addresses: [{ type: "InternalIP", address: "10.9.9.9" }] })],
        ["labels", { ...patchOf("node-1", mine), body: { metadata: { labels: { a: "b" } } } }],
        ["the node itself", { ...patchOf("node-1", mine), path: "/api/v1/nodes/node-1" }],
        ["reading a node", get("/api/v1/nodes/node-1")],
        ["all nodes", get("/api/v1/nodes")],
        ["its own namespace's Secrets", get("/api/v1/namespaces/p2p-mirror/secrets")],
        ["the secret it has in a file", get("/api/v1/namespaces/p2p-mirror/secrets/p2p-mirror-secret")],
        ["Pods", get("/api/v1/namespaces/p2p-mirror/pods")],
        ["ConfigMaps", get("/api/v1/namespaces/p2p-mirror/configmaps")],
        ["Events of others", get("/api/v1/namespaces/default/events")],
      ];
      for (const [what, request] of wrong) {
        const code = await refusal(one, request);
        t.ok(code === 403 || code === 422, `${what}: ${code}`);
      }
      t.equal(await refusal(one, patchOf("node-1", mine)), undefined, "what it does need");
    });
  });
}

function get(path: string): ApiRequest {
  return { method: "GET", path };
}

function patchOf(node: string, status: object): ApiRequest {
  return { method: "PATCH", path: `/api/v1/nodes/${node}/status`, contentType: MERGE, body: { status } };
}

/** The HTTP status of the error, or undefined when it was allowed. */
async function refusal(api: KubernetesApi, request: ApiRequest): Promise<number | undefined> {
  try {
    await api.ask(request, signal);
    return undefined;
  } catch (error) {
    if (error instanceof Error && "status" in error && typeof error.status === "number") return error.status;
    throw error;
  }
}
