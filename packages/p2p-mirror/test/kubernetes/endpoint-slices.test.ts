import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import t from "tap";
import { KubernetesApiClient } from "../../src/kubernetes/api-client.ts";
import { endpointsOf } from "../../src/kubernetes/endpoint-slices.ts";
import { startFakeApi } from "./fake-api.ts";

const { signal } = new AbortController();
const SERVICE = { namespace: "p2p-mirror", name: "p2p-mirror" };

const sliceOf = (addresses: readonly string[], port: unknown): object => ({
  ports: [
    { name: "peer", port: 24221 },
    { name: "p2p", port },
  ],
  endpoints: addresses.map((address) => ({ addresses: [address], conditions: { ready: false } })),
});

await t.test("all endpoints of the Service, ready or not, at its port p2p", async (t) => {
  const items = [sliceOf(["10.0.0.1", "10.0.0.2"], 24222), sliceOf(["fd00::1"], 24222)];
  const api = await startFakeApi(t, () => ({ status: 200, body: { items } }));
  const client = new KubernetesApiClient(api);
  t.same(await endpointsOf(client, SERVICE, signal), [
    { host: "10.0.0.1", port: 24222 },
    { host: "10.0.0.2", port: 24222 },
    { host: "fd00::1", port: 24222 },
  ]);
  t.match(api.asked, [
    {
      method: "GET",
      path: "/apis/discovery.k8s.io/v1/namespaces/p2p-mirror/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dp2p-mirror&limit=5",
      authorization: "Bearer a token",
    },
  ]);

  await writeFile(join(api.accountDir, "token"), "another token");
  await endpointsOf(client, SERVICE, signal);
  t.equal(api.asked[1]?.authorization, "Bearer another token", "kubelet renews it");
});

await t.test("what is no address and no port is passed over, what is no list is an error", async (t) => {
  const odd = [
    sliceOf(["mirror.example", "10.0.0.1"], 24222),
    sliceOf(["10.0.0.2"], "24222"),
    sliceOf(["10.0.0.3"], 70_000),
    { endpoints: "none" },
    null,
  ];
  const api = await startFakeApi(t, () => ({ status: 200, body: { items: odd } }));
  const client = new KubernetesApiClient(api);
  t.same(await endpointsOf(client, SERVICE, signal), [{ host: "10.0.0.1", port: 24222 }]);
  for (const body of ["no JSON", [], { items: {} }]) {
    api.answer = () => ({ status: 200, body });
    await t.rejects(endpointsOf(client, SERVICE, signal), { name: "SourceError", code: "STATUS" });
  }
});

await t.test("refused, silent, too much, or not to be trusted: an error that says so, in time", async (t) => {
  const api = await startFakeApi(t, () => ({ status: 403, body: { kind: "Status" } }));
  const client = new KubernetesApiClient({ ...api, timeoutMs: 2_000 });
  const asking = (): Promise<unknown> => endpointsOf(client, SERVICE, signal);
  await t.rejects(asking(), { code: "DENIED", status: 403 });
  api.answer = () => ({ status: 503, body: {} });
  await t.rejects(asking(), { code: "STATUS", status: 503 });
  api.answer = () => ({ status: 200, body: "x".repeat(5 * 1024 * 1024) });
  await t.rejects(asking(), { code: "STATUS", message: /answers too much/ });
  api.answer = () => "silence";
  const impatient = new KubernetesApiClient({ ...api, timeoutMs: 100 });
  await t.rejects(endpointsOf(impatient, SERVICE, signal), { code: "UNREACHABLE" });
  await t.rejects(endpointsOf(new KubernetesApiClient({ ...api, port: 1 }), SERVICE, signal), {
    code: "UNREACHABLE",
  });

  const stranger = await startFakeApi(t, () => ({ status: 200, body: { items: [] } }));
  const fooled = new KubernetesApiClient({ ...stranger, accountDir: api.accountDir });
  await t.rejects(endpointsOf(fooled, SERVICE, signal), { code: "UNREACHABLE" });
  t.same(stranger.asked, [], "no token for whoever has no certificate of the cluster");
  const nowhere = new KubernetesApiClient({ ...api, accountDir: join(api.accountDir, "none") });
  await t.rejects(endpointsOf(nowhere, SERVICE, signal), { message: /(token|ca\.crt) cannot be read/ });
});
