import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { inspect } from "node:util";
import t from "tap";
import type { FlagValues } from "@p2p-mirror/shared/config";
import { loadMirrorConfig } from "../../src/config/load.ts";

interface Given {
  readonly flags?: FlagValues;
  readonly env?: Readonly<Record<string, string>>;
  readonly configPath?: string;
}

const load = ({ flags = {}, env = {}, configPath }: Given = {}, allAddresses = "0.0.0.0") =>
  loadMirrorConfig({ flags, env, configPath }, { allAddresses });

const SECRET: FlagValues = { cluster_secret_file: ["/etc/secret"] };

await t.test("the defaults are those of the documentation, and warn of nothing", async (t) => {
  const { config, warnings } = await load();
  t.same(warnings, []);
  t.same(config.registryListen, { host: "127.0.0.1", port: 24220 });
  t.same(config.peerListen, { host: "127.0.0.1", port: 24221 });
  t.same(config.p2pListen, { host: "127.0.0.1", port: 24222 });
  t.same(config.adminListen, { host: "127.0.0.1", port: 24223 });
  t.equal(config.cacheSize, 20 * 1024 ** 3);
  t.same(config.cacheMinFree, { fraction: 0.1 });
  t.equal(config.containerdSocket, "/run/containerd/containerd.sock");
  t.equal(config.containerdNamespace, "k8s.io");
  t.equal(config.access, "public");
  t.equal(config.logLevel, "info");
  t.equal(config.registries.size, 0);
  t.ok(Object.isFrozen(config));
});

await t.test("limits are bytes per second, and off", async (t) => {
  const flags = { limit_upstream: "50MiB", limit_in: "off" };
  const { config } = await load({ flags, env: { P2P_MIRROR_LIMIT_OUT: "256KiB" } });
  t.equal(config.limitUpstream, 50 * 1024 ** 2);
  t.equal(config.limitIn, undefined);
  t.equal(config.limitOut, 256 * 1024);
  t.equal((await load()).config.limitUpstream, undefined);
  for (const limit of ["0", "100KiB", "50Mbit", "fast", "-1MiB", "10%"])
    await t.rejects(load({ flags: { limit_out: limit } }), {
      message: /^--limit-out: .*give bytes per second like 50MiB, 256KiB or more, or "off"$/,
    });
});

await t.test(
  "with a cluster secret the mesh listens on all addresses, the rest stays on loopback",
  async (t) => {
    const { config, warnings } = await load({ flags: SECRET });
    t.same(config.peerListen, { host: "0.0.0.0", port: 24221 });
    t.same(config.p2pListen, { host: "0.0.0.0", port: 24222 });
    t.equal(config.registryListen.host, "127.0.0.1");
    t.equal(config.adminListen.host, "127.0.0.1");
    t.same(config.clusterSecretFiles, ["/etc/secret"]);
    t.same(warnings, []);
  },
);

await t.test("on a machine without IPv4 all addresses are ::", async (t) => {
  t.equal((await load({ flags: SECRET }, "::")).config.peerListen.host, "::");
});

await t.test("a port alone keeps the host that the secret decides", async (t) => {
  const flags = { peer_listen: ":9", p2p_listen: ":0", registry_listen: ":8" };
  t.same((await load({ flags })).config.peerListen, { host: "127.0.0.1", port: 9 });
  t.same((await load({ flags: { ...flags, ...SECRET } })).config.peerListen, { host: "0.0.0.0", port: 9 });
  t.same((await load({ flags: { ...flags, ...SECRET } })).config.registryListen, {
    host: "127.0.0.1",
    port: 8,
  });
});

await t.test("an explicit mesh address beyond loopback needs a secret or a word", async (t) => {
  for (const key of ["peer_listen", "p2p_listen"] as const) {
    for (const address of ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "node.example:1"]) {
      const flags = { [key]: address };
      await t.rejects(load({ flags }), { code: "CONFIG_INVALID", value: address }, `${key} ${address}`);
      await t.resolves(load({ flags: { ...flags, ...SECRET } }), `${key} ${address} with a secret`);
      const { config, warnings } = await load({ flags: { ...flags, insecure_open_mesh: true } });
      t.equal(key === "peer_listen" ? config.peerListen.port : config.p2pListen.port, 1);
      t.match(warnings, [/^the mesh is open/], `${key} ${address} with the word`);
    }
    for (const address of ["127.0.0.1:1", "[::1]:1", "localhost:1", "127.3.2.1:1"]) {
      await t.resolves(load({ flags: { [key]: address } }), `${key} ${address}`);
    }
  }
});

await t.test("the word alone opens nothing", async (t) => {
  const { config, warnings } = await load({ flags: { insecure_open_mesh: true } });
  t.equal(config.peerListen.host, "127.0.0.1");
  t.same(warnings, []);
});

await t.test("the error names where the address was given", async (t) => {
  await t.rejects(load({ env: { P2P_MIRROR_P2P_LISTEN: "0.0.0.0:1" } }), {
    message:
      'P2P_MIRROR_P2P_LISTEN: "0.0.0.0:1" is not valid: beyond loopback whoever connects is a peer: add --cluster-secret-file FILE, or --insecure-open-mesh to allow that',
  });
});

await t.test("two listeners cannot have one address, but any number the port 0", async (t) => {
  await t.rejects(load({ flags: { registry_listen: "127.0.0.1:5", admin_listen: "127.0.0.1:5" } }), {
    code: "CONFIG_INVALID",
    field: "--admin-listen",
    fix: /registry_listen has the same address/,
  });
  await t.resolves(
    load({ flags: { registry_listen: ":0", admin_listen: ":0", peer_listen: ":0", p2p_listen: ":0" } }),
  );
});

await t.test("what is allowed but dangerous is one warning line each", async (t) => {
  const open = await load({ flags: { access: "open" } });
  t.match(open.warnings, [/^access is open: whatever this mirror holds, private images too, is readable/]);
  const wide = await load({ flags: { registry_listen: "0.0.0.0:24220", admin_listen: "0.0.0.0:24223" } });
  t.match(wide.warnings, [
    /^registry_listen 0.0.0.0:24220 is beyond loopback/,
    /^admin_listen 0.0.0.0:24223/,
  ]);
  t.match((await load({ env: { P2P_MIRROR_CACHE_SISE: "1GiB" } })).warnings, [/P2P_MIRROR_CACHE_SIZE\?$/]);
  t.same(
    (await load({ env: { P2P_MIRROR_CONFIG: "", P2P_MIRROR_ADMIN: "x", P2P_MIRROR_PORT: "x" } })).warnings,
    [],
  );
  for (const line of [...open.warnings, ...wide.warnings]) t.notOk(line.includes("\n"));
});

await t.test("containerd can be left out", async (t) => {
  t.equal((await load({ flags: { containerd_socket: "none" } })).config.containerdSocket, undefined);
  await t.rejects(load({ flags: { containerd_namespace: "k8s io" } }), {
    code: "CONFIG_INVALID",
    value: "k8s io",
  });
});

await t.test("proxies come from the usual variables, ours first", async (t) => {
  const env = { HTTPS_PROXY: "http://user:pw@proxy.example:3128", no_proxy: "10.0.0.0/8,.local" };
  const { config } = await load({ env: { ...env, P2P_MIRROR_HTTP_PROXY: "own:1", HTTP_PROXY: "other:1" } });
  t.equal(config.httpsProxy, "http://user:pw@proxy.example:3128/");
  t.equal(config.httpProxy, "http://own:1/");
  t.equal(config.proxyBypass, "10.0.0.0/8,.local");
  const error: unknown = await load({ env: { HTTPS_PROXY: "socks5://user:pw@x" } }).catch(
    (reason: unknown) => reason,
  );
  t.match(error, { field: "HTTPS_PROXY" });
  t.notOk(String(error).includes("pw"), "its password is in no error");
});

const PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
const KEY = "-----BEGIN EC PRIVATE KEY-----\nMIIB\n-----END EC PRIVATE KEY-----\n";

await t.test("registries of the file, with PEM files read and --upstream merged in", async (t) => {
  const dir = t.testdir({ "ca.pem": PEM, "key.pem": KEY });
  const file = join(dir, "mirror.yaml");
  await writeFile(
    file,
    `registries:
  Docker.IO:
    url: https://hub.example/
    size: 5GiB
    ttl: 7d
  priv.example:5000:
    ca: [${join(dir, "ca.pem")}]
    client_cert: ${join(dir, "ca.pem")}
    client_key: ${join(dir, "key.pem")}
    skip_verify: true
    override_path: true
    headers: { X-Team: platform }
    ttl: off
    off: true
`,
  );
  const { config, warnings } = await load({
    configPath: file,
    flags: { upstream: ["docker.io=http://10.0.0.5:5000/hub/", "GHCR.io=http://cache"] },
  });
  t.same([...config.registries.keys()], ["docker.io", "priv.example:5000", "ghcr.io"]);
  t.match(config.registries.get("docker.io"), {
    url: "http://10.0.0.5:5000/hub",
    size: 5 * 1024 ** 3,
    ttlMs: 7 * 86_400_000,
    off: false,
  });
  t.same(config.registries.get("priv.example:5000"), {
    url: undefined,
    ca: [PEM],
    clientCert: { cert: PEM, key: KEY },
    skipVerify: true,
    headers: { "x-team": "platform" },
    overridePath: true,
    mirror: true,
    size: undefined,
    ttlMs: undefined,
    off: true,
  });
  t.match(config.registries.get("ghcr.io"), { url: "http://cache", ca: [], skipVerify: false, off: false });
  t.match(warnings, [/^registries.priv.example:5000.skip_verify/]);
  for (const registry of config.registries.values()) t.ok(Object.isFrozen(registry));
});

await t.test("a wrong registry setting is told with its line", async (t) => {
  const dir = t.testdir({ "key.pem": KEY });
  const cases: [string, string, RegExp][] = [
    ["ca: [/no/such/file]", "registries.a.ca.0", /readable PEM file \(ENOENT\)/],
    [`ca: [${join(dir, "key.pem")}]`, "registries.a.ca.0", /with a certificate in it/],
    [`client_key: ${join(dir, "key.pem")}`, "registries.a.client_key", /give client_cert too/],
    ["headers: { Host: x }", "registries.a.headers.Host", /other than host/],
    ['headers: { x: "a\\r\\nb" }', "registries.a.headers.x", /without control characters/],
    ["size: -5", "registries.a.size", /give a size/],
    ["ttl: 5", "registries.a.ttl", /give a text/],
    ["ttl: forever", "registries.a.ttl", /or "off"/],
  ];
  for (const [line, key, fix] of cases) {
    const file = join(dir, "mirror.yaml");
    await writeFile(file, `registries:\n  a:\n    ${line}\n`);
    await t.rejects(
      load({ configPath: file }),
      { code: "CONFIG_INVALID", field: `${file}:3: ${key}`, fix },
      line,
    );
  }
});

await t.test("a docker config must be there and be JSON, and nothing of it is shown", async (t) => {
  const dir = t.testdir({
    "good.json": '{"auths":{}}',
    "bad.json": '{"auths":{"a":{"password":"hunter2"}}',
    "list.json": "[]",
  });
  const given = (name: string) => load({ flags: { docker_config: join(dir, name) } });
  t.equal((await given("good.json")).config.dockerConfig, join(dir, "good.json"));
  for (const name of ["bad.json", "list.json", "none.json"]) {
    const error: unknown = await given(name).catch((reason: unknown) => reason);
    t.match(error, { code: "CONFIG_INVALID", field: "--docker-config", value: join(dir, name) }, name);
    t.notOk(inspect(error).includes("hunter2"), name);
  }
});

await t.test("--upstream is read strictly", async (t) => {
  const cases: [string[], RegExp][] = [
    [["docker.io"], /give REGISTRY=URL/],
    [["docker.io=cache.example"], /http or https URL/],
    [["docker io=http://x"], /give a registry/],
    [["docker.io=http://a", "DOCKER.io=http://b"], /given twice/],
    [["docker.io=http://u:p@x"], /user and password/],
  ];
  for (const [upstream, fix] of cases) {
    await t.rejects(
      load({ flags: { upstream } }),
      { code: "CONFIG_INVALID", field: "--upstream", fix },
      upstream.join(),
    );
  }
});

await t.test("the config file is named by the flag, else by the variable", async (t) => {
  const dir = t.testdir({
    "a.yaml": "cache_size: 1",
    "b.yaml": "cache_size: 2",
    "big.yaml": "#".repeat(1024 * 1024 + 1),
  });
  const env = { P2P_MIRROR_CONFIG: join(dir, "b.yaml") };
  t.equal((await load({ env, configPath: join(dir, "a.yaml") })).config.cacheSize, 1);
  t.equal((await load({ env })).config.cacheSize, 2);
  await t.rejects(load({ configPath: join(dir, "no.yaml") }), {
    code: "CONFIG_INVALID",
    field: "--config",
    fix: /ENOENT/,
  });
  await t.rejects(load({ env: { P2P_MIRROR_CONFIG: dir } }), {
    code: "CONFIG_INVALID",
    field: "P2P_MIRROR_CONFIG",
    fix: /EISDIR/,
  });
  await t.rejects(load({ configPath: join(dir, "big.yaml") }), {
    code: "CONFIG_INVALID",
    fix: /at most 1 MiB/,
  });
});

await t.test("what Kubernetes is asked for: as a Pod's environment has it, or not at all", async (t) => {
  const pod = {
    P2P_MIRROR_KUBERNETES_API: "10.96.0.1:443",
    P2P_MIRROR_BOOTSTRAP_SERVICE: "mirrors/p2p-mirror",
    P2P_MIRROR_NODE_CONDITION: "ip-10-0-0-1.example.internal",
  };
  const { config } = await load({ env: pod });
  t.same(config.kubernetesApi, { host: "10.96.0.1", port: 443 });
  t.same(config.bootstrapService, { namespace: "mirrors", name: "p2p-mirror" });
  t.equal(config.nodeCondition, "ip-10-0-0-1.example.internal");
  t.equal(config.kubernetesAccount, "/var/run/secrets/kubernetes.io/serviceaccount");
  for (const [text, host] of [
    ["fd00::1:443", "fd00::1"],
    ["[fd00::1]:443", "fd00::1"],
    ["kubernetes.default.svc:443", "kubernetes.default.svc"],
  ] as const) {
    t.same((await load({ flags: { kubernetes_api: text } })).config.kubernetesApi, { host, port: 443 });
  }

  const nothing = (await load()).config;
  t.same([nothing.kubernetesApi, nothing.bootstrapService, nothing.nodeCondition], Array(3).fill(undefined));
  const wrong: [FlagValues, RegExp][] = [
    [
      { bootstrap_service: "a/b" },
      /^--bootstrap-service: "a\/b" is not valid: .*--kubernetes-api HOST:PORT$/,
    ],
    [{ node_condition: "n" }, /^--node-condition: "n" is not valid: .*--kubernetes-api HOST:PORT$/],
    [{ bootstrap_service: "p2p-mirror" }, /give NAMESPACE\/NAME of a Service/],
    [{ bootstrap_service: "../a/b" }, /give NAMESPACE\/NAME of a Service/],
    [{ node_condition: "n/status" }, /give the name of a Node/],
    [{ kubernetes_api: "https://10.96.0.1" }, /give HOST:PORT/],
  ];
  for (const [flags, message] of wrong) await t.rejects(load({ flags }), { message });
});

await t.test("metrics are on loopback, unless an address of their own is named", async (t) => {
  t.equal((await load()).config.metricsListen, undefined);
  const { config, warnings } = await load({ flags: { metrics_listen: ":24225" } });
  t.same(config.metricsListen, { host: "0.0.0.0", port: 24225 });
  t.same(warnings, []);
  await t.rejects(load({ flags: { metrics_listen: "127.0.0.1:24223" } }), {
    message: /admin_listen has the same address/,
  });
});
