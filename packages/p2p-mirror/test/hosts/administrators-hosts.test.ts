import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import t, { type Test } from "tap";
import { createLogger, silentLogger } from "@p2p-mirror/shared";
import { leadsTo } from "../../src/daemon-hosts.ts";
import { AdministratorsHosts, whyNotUnderstood } from "../../src/hosts/administrators-hosts.ts";
import { installHosts } from "../../src/hosts/hosts.ts";
import { RegistryDirectory } from "../../src/hosts/registry-directory.ts";
import { LAYOUTS, PEM } from "./layouts.ts";
import { layOut } from "./tree.ts";

const mirror = "http://127.0.0.1:24220";
const CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
const KEY = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";

interface Reader {
  readonly certs: string;
  readonly hosts: AdministratorsHosts;
  readonly lines: string[];
}

const isSelf = (url: string): boolean => url === mirror;

function reader(t: Test, tree: Parameters<Test["testdir"]>[0]): Reader {
  const certs = t.testdir(tree);
  const lines: string[] = [];
  const logger = createLogger("info", { write: (line) => void lines.push(line) });
  return { certs, lines, hosts: new AdministratorsHosts({ hostsDir: certs, isSelf }, { logger }) };
}

const toml = (text: string): Record<string, string> => ({ "hosts.toml": text });
const serverAt = (name: string): Record<string, string> => toml(`server = "https://${name}.example"\n`);
const hostWith = (line: string): string => `[host."https://m.example"]\n${line}\n`;

await t.test("hosts in file order, then the server; the mirror's own block is not among them", async (t) => {
  const { certs, hosts } = reader(t, {
    "docker.io": {
      ...toml(`server = "https://registry-1.docker.io"
ca = "root.crt"
[host."https://m.example/prefix"]
  capabilities = ["pull", "Resolve"]
  client = [["node.crt", "node.key"], ["second.crt", "second.key"]]
  skip_verify = true
  dial_timeout = "3s"
  [host."https://m.example/prefix".header]
    X-Key = "secret"
    x-list = ["a", "b"]
    Host = "elsewhere"
[host."n.example:5000"]
  capabilities = "pull"
  override_path = true
  ca = ["root.crt", "./root.crt"]
  client = "both.pem"
`),
      "root.crt": CERTIFICATE,
      "node.crt": CERTIFICATE,
      "node.key": KEY,
      "both.pem": CERTIFICATE + KEY,
    },
  });
  await hosts.read();
  const before = hosts.of("docker.io");
  const standard = { overridePath: false, resolves: true, pulls: true, skipVerify: false };
  t.strictSame(before, [
    {
      ...standard,
      url: "https://m.example/prefix",
      skipVerify: true,
      headers: { "x-key": ["secret"], "x-list": ["a", "b"] },
      ca: [],
      clientCert: { cert: CERTIFICATE, key: KEY },
    },
    {
      ...standard,
      url: "https://n.example:5000",
      overridePath: true,
      resolves: false,
      headers: {},
      ca: [CERTIFICATE, CERTIFICATE],
      clientCert: { cert: CERTIFICATE + KEY, key: CERTIFICATE + KEY },
    },
    {
      ...standard,
      url: "https://registry-1.docker.io",
      headers: {},
      ca: [CERTIFICATE],
      clientCert: undefined,
    },
  ]);
  await installHosts({ hostsDir: certs, mirror, registries: [] });
  await hosts.read();
  t.equal(hosts.of("docker.io"), before, "the same object: nothing has changed");
  t.equal(hosts.of("quay.io"), undefined, "a _default that is all ours lists nobody");
});

await t.test("which directory it is: as containerd looks", async (t) => {
  const { hosts } = reader(t, {
    _default: serverAt("default"),
    "a.test": {},
    "b.test:5000": serverAt("colon"),
    "c.test:5000": serverAt("colon"),
    "c.test_5000_": serverAt("underscore"),
    _backup: serverAt("backup"),
  });
  await hosts.read();
  const urlOf = (registry: string): string | undefined => hosts.of(registry)?.[0]?.url;
  t.equal(urlOf("elsewhere.test"), "https://default.example");
  t.equal(urlOf("a.test"), undefined, "an empty directory is no reason to look into _default");
  t.equal(urlOf("b.test:5000"), "https://colon.example");
  t.equal(urlOf("c.test:5000"), "https://underscore.example");
  t.equal(urlOf("b.test"), "https://default.example");
});

await t.test(
  "certificates of Docker's layout that cannot be read, and a _default that is not understood",
  async (t) => {
    const { hosts } = reader(t, {
      _default: toml('[host."https://m.example"]\n  ca = "/nowhere/ca.crt"\n'),
      "a.test": { "ca.crt": "no certificate" },
      "b.test": serverAt("b"),
    });
    await hosts.read();
    t.strictSame(hosts.of("elsewhere.test"), []);
    t.strictSame(hosts.of("a.test"), []);
    t.equal(
      hosts.of("b.test")?.[0]?.url,
      "https://b.example",
      "another registry's file is no matter of theirs",
    );
  },
);

await t.test("certificates without a hosts.toml, also after the mirror has made one", async (t) => {
  const { certs, hosts } = reader(t, {
    "a.test": { "ca.crt": CERTIFICATE, "node.cert": CERTIFICATE, "node.key": KEY },
  });
  await hosts.read();
  const [first, ...others] = hosts.of("a.test") ?? [];
  t.strictSame(others, []);
  t.match(first, { url: undefined, ca: [CERTIFICATE], clientCert: { cert: CERTIFICATE, key: KEY } });
  await installHosts({ hostsDir: certs, mirror, registries: [] });
  await hosts.read();
  t.equal(hosts.of("a.test")?.[0], first);
});

await t.test("the mirror itself, written down by hand, is nobody to ask", async (t) => {
  const self = `[host."${mirror}"]\n`;
  const { hosts } = reader(t, {
    "a.test": toml(`${self}[host."https://m.example"]\n`),
    "b.test": toml(self),
    "c.test": toml(`server = "${mirror}"\n`),
    "d.test": toml(`server = "${mirror}"\n[host."https://m.example"]\n`),
  });
  await hosts.read();
  const urls = (registry: string): unknown => hosts.of(registry)?.map(({ url }) => url);
  t.strictSame(urls("a.test"), ["https://m.example", undefined]);
  t.strictSame(urls("b.test"), undefined);
  t.strictSame(urls("c.test"), undefined, "the registry itself is behind it");
  t.strictSame(urls("d.test"), ["https://m.example", undefined]);

  const listen = { host: "127.0.0.1", port: 24220 };
  for (const url of [mirror, "http://localhost:24220/x", "http://127.0.0.2:24220"])
    t.ok(leadsTo(listen, url), url);
  for (const url of [
    "http://127.0.0.1:24221",
    "http://10.0.0.1:24220",
    "https://127.0.0.1",
    "http://m.example:24220",
  ])
    t.notOk(leadsTo(listen, url), url);
  const all = { host: "0.0.0.0", port: 80 };
  for (const url of ["http://127.0.0.1", "http://[::1]/"]) t.ok(leadsTo(all, url), url);
  t.notOk(leadsTo(all, "http://192.0.2.1"));
  t.ok(leadsTo({ host: "10.0.0.7", port: 1 }, "http://10.0.0.7:1"));
  t.notOk(leadsTo({ host: "10.0.0.7", port: 1 }, "http://127.0.0.1:1"));
});

await t.test(
  "what is not understood is said once, with the file; nobody is asked, not even whom it named before",
  async (t) => {
    const { certs, hosts, lines } = reader(t, { "a.test": toml('server = "https://good.example"\n') });
    await hosts.read();
    t.equal(hosts.of("a.test")?.length, 1);
    const file = join(certs, "a.test/hosts.toml");
    const bad: readonly [string, RegExp][] = [
      ["server =", /no TOML, line 1/],
      [hostWith('capabilities = ["pull", "fly"]'), /host.*m\.example.*capabilities/],
      [hostWith("capabilities = [1]"), /capabilities/],
      [hostWith("ca = 7"), /\.ca: no path/],
      [hostWith('ca = "missing.crt"'), /missing\.crt cannot be read/],
      [hostWith('ca = "hosts.toml"'), /hosts\.toml is no PEM file/],
      [hostWith("client = [[]]"), /client: no path/],
      [hostWith("client = [[1, 2]]"), /client: no path/],
      [hostWith('header = "x"'), /header: a name or value/],
      [hostWith('header = { x = "a\\nb" }'), /header: a name or value/],
      [hostWith('rewrite = { "^(.*)" = "x/$1" }'), /rewrite: this mirror does not/],
      ['[host."https://user:password@m.example"]\nca = 7\n', /m\.example.*ca: no path/],
      ['server = "http://"\n', /server: no URL/],
      ["# >>> p2p-mirror: half a block\n", /the begin or the end/],
    ];
    for (const [text, reason] of bad) {
      await writeFile(file, 'server = "https://good.example"\n');
      await hosts.read();
      await writeFile(file, text);
      lines.length = 0;
      await hosts.read();
      await hosts.read();
      t.equal(lines.length, 1, text);
      const line: unknown = JSON.parse(lines[0] ?? "{}");
      t.match(line, { file, reason }, text);
      t.notMatch(lines[0], /password|a\\nb/, "nothing of what may be a secret");
      t.strictSame(hosts.of("a.test"), [], text);
      const why = await whyNotUnderstood(new RegistryDirectory(certs, "a.test"), isSelf);
      t.match(why, reason, text);
    }
    await writeFile(file, hostWith('rewrite = { "^(.*)" = "x/$1" }'));
    await hosts.read();
    const nobody = hosts.of("a.test");
    t.same(await installHosts({ hostsDir: certs, mirror, registries: ["a.test"] }), [
      { directory: "a.test", outcome: "installed" },
    ]);
    await hosts.read();
    t.equal(hosts.of("a.test"), nobody, "the same with the mirror in front");
    await writeFile(file, 'server = "https://good.example"\n');
    await hosts.read();
    t.equal(hosts.of("a.test")?.[0]?.url, "https://good.example");
    await rm(join(certs, "a.test"), { recursive: true });
    await hosts.read();
    t.equal(hosts.of("a.test"), undefined);
    t.equal(await whyNotUnderstood(new RegistryDirectory(certs, "a.test"), isSelf), undefined);
  },
);

await t.test("every layout of certs.d says the same with the mirror in front as without it", async (t) => {
  const pem = new Map<string, string>([
    [PEM.certificate, CERTIFICATE],
    [PEM.key, KEY],
    [PEM.both, CERTIFICATE + KEY],
  ]);
  for (const layout of LAYOUTS) {
    const certs = join(t.testdir({}), "certs.d");
    await rm(certs, { recursive: true, force: true });
    await layOut(certs, layout, pem);
    const hosts = new AdministratorsHosts({ hostsDir: certs, isSelf }, { logger: silentLogger() });
    await hosts.read();
    const before = hosts.of(layout.registry);
    await installHosts({ hostsDir: certs, mirror, registries: [] });
    await hosts.read();
    t.equal(hosts.of(layout.registry), before, layout.name);
  }
});
