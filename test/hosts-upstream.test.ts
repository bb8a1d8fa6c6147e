/**
 * What an administrator had in hosts.toml still counts once the mirror is in front: real containerds pull from registries
 * that only that file leads to, and the mirror is the one who asks them.
 */
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import t, { type Test } from "tap";
import { createTestCa } from "../packages/p2p-mirror/test/upstream/test-ca.ts";
import type { ComponentName } from "./rig/components.ts";
import { startContainerd, type Containerd } from "./rig/containerd.ts";
import { createCri } from "./rig/cri.ts";
import { startMirror, type Mirror, type MirrorOptions } from "./rig/mirror.ts";
import { need } from "./rig/need.ts";
import {
  buildImage,
  type BuiltImage,
  startOciRegistry,
  type OciRegistry,
  type OciRegistryOptions,
} from "./rig/oci-registry.ts";
import { startRecorder } from "./rig/recorder.ts";
import { tempFolder } from "./rig/temp.ts";
import { until } from "./rig/until.ts";

const CONTAINERDS: readonly ComponentName[] = ["containerd-1.7", "containerd-2.1", "containerd-2.x"];

interface Scene {
  readonly containerd: Containerd;
  /** Another one for each directory of certs.d, by its name, with an image `app:v1`. */
  registry(name: string, options?: OciRegistryOptions): Promise<OciRegistry>;
  /** Writes `<name>/hosts.toml`, and files beside it. */
  administrator(name: string, hosts: string, files?: Readonly<Record<string, string>>): Promise<void>;
  mirror(options?: MirrorOptions): Promise<Mirror>;
  pull(name: string): Promise<string>;
}

const CASES: Readonly<Record<string, (t: Test, scene: Scene) => Promise<void>>> = {
  "a private CA, a client certificate, a header and a path of its own: the mirror has them all": keysOfAll,
  "a certificate that nobody knows, which the administrator takes all the same: so does the mirror":
    unverified,
  "a host that has nothing, one that is down, a mirror and the mirror itself: the next one is asked":
    inTheirOrder,
  "_default sends every registry to one place, until somebody changes it": changes,
  "what only the administrator's key opens is declined by default, and containerd gets it by itself":
    declined,
  "a file the mirror does not understand: containerd asks its hosts, and the mirror not even the registry itself":
    notUnderstood,
};

async function keysOfAll(t: Test, scene: Scene): Promise<void> {
  const ca = await createTestCa();
  const { cert, key } = await ca.issue("node");
  const registry = await scene.registry("keys.test", {
    basePath: "/v2/cache",
    tls: { ...(await ca.issue()), clientCa: ca.cert },
    faults: [{ match: { without: "x-key" }, status: 403 }],
  });
  const at = `${registry.url}/v2/cache`;
  await scene.administrator(
    "keys.test",
    `# by hand
server = "http://127.0.0.1:9"
[host."${at}"]
  ca = "ca.crt"
  client = [["node.crt", "node.key"]]
  override_path = true
  [host."${at}".header]
    X-Key = "of the administrator"
`,
    { "ca.crt": ca.cert, "node.crt": cert, "node.key": key },
  );
  await scene.mirror({ access: "open" });
  await scene.pull("keys.test");
  t.ok(registry.requests.length >= 4, "tag, manifest, config and layer");
  t.same(askers(registry), ["p2p-mirror"]);
  t.ok(registry.requests.every(({ headers }) => headers["x-key"] === "of the administrator"));
}

async function unverified(t: Test, scene: Scene): Promise<void> {
  const registry = await scene.registry("self-signed.test", { tls: await (await createTestCa()).issue() });
  await scene.administrator("self-signed.test", `[host."${registry.url}"]\n  skip_verify = true\n`);
  await scene.mirror({ access: "open" });
  await scene.pull("self-signed.test");
  t.same(askers(registry), ["p2p-mirror"]);
}

async function inTheirOrder(t: Test, scene: Scene): Promise<void> {
  const empty = await startOciRegistry();
  t.teardown(() => empty.close());
  const registry = await scene.registry("order.test");
  const neighbour = await scene.mirror({ upstreams: { "order.test": registry.url } });
  const mirror = await scene.mirror({ access: "public" });
  // A way to the mirror that does not look like it: only asking shows who it is.
  const detour = await startRecorder({ target: mirror.url });
  t.teardown(() => detour.close());
  const hosts = [empty.url, "http://127.0.0.1:9", detour.url, neighbour.url];
  await mirror.stop();
  await scene.administrator(
    "order.test",
    `server = "${registry.url}"\n${hosts.map((url) => `[host."${url}"]\n`).join("")}`,
  );
  await mirror.start();
  await scene.pull("order.test");
  t.same(askers(empty), ["p2p-mirror"]);
  t.same(askers(registry), ["p2p-mirror"]);
  const metrics = await neighbour.metrics();
  const served = metrics.sum("p2p_mirror_upstream_requests_total");
  t.equal(served, 0, "the other mirror has declined: who asks is a mirror");
}

async function changes(t: Test, scene: Scene): Promise<void> {
  const [before, after] = [await scene.registry("any.test"), await scene.registry("any.test")];
  await scene.administrator("_default", `server = "${before.url}"\n`);
  const mirror = await scene.mirror();
  await scene.pull("any.test");
  t.same(askers(before), ["p2p-mirror"]);

  await before.close();
  await scene.administrator("_default", `[host."${after.url}"]\n`);
  await installed(scene.containerd, "_default");
  await until(
    "the new host is asked",
    async () => (await asked(mirror, "later.test"), after.requests.length > 0),
    {
      timeoutMs: 60_000,
    },
  );
  t.same(askers(after), ["p2p-mirror"]);
}

async function declined(t: Test, scene: Scene): Promise<void> {
  const registry = await scene.registry("private.test", {
    faults: [{ match: { without: "x-key" }, status: 403 }],
  });
  await scene.administrator(
    "private.test",
    `server = "${registry.url}"\n[header]\n  x-key = "of the administrator"\n`,
  );
  await scene.mirror();
  await scene.pull("private.test");
  t.same(askers(registry), ["containerd", "p2p-mirror"]);
  t.notOk(
    registry.requests.some(({ headers }) => "x-key" in headers && headers["user-agent"] === "p2p-mirror"),
    "the mirror asked as nobody",
  );
}

/** k3s's table, which containerd passes over, and a CA in a bundle that only containerd takes. */
async function notUnderstood(t: Test, { containerd, ...scene }: Scene): Promise<void> {
  const ca = await createTestCa();
  const tls = await ca.issue();
  const bundle = `${`# ${"a CA of somebody else, left out".repeat(2)}\n`.repeat(80_000)}${ca.cert}`;
  const trusted = path.join(await tempFolder("ca"), "ca.crt");
  await writeFile(trusted, ca.cert);
  t.teardown(() => rm(path.dirname(trusted), { recursive: true }));
  const files = {
    rewrite: (url: string) => `[host."${url}".rewrite]\n    "^rancher/(.*)" = "mirrored/$1"\n`,
    ca: () => `  ca = "bundle.crt"\n`,
  };
  const registries = [];
  for (const [what, line] of Object.entries(files)) {
    // The registry that the image's name says: the mirror reaches and trusts it, and would get another image there.
    const itself = await scene.registry(`not ${what}`, { tls });
    const theirs = await scene.registry(what, what === "ca" ? { tls } : {});
    const name = new URL(itself.url).host;
    const hosts = `# generated\nserver = "http://127.0.0.1:9"\n[host."${theirs.url}"]\n  capabilities = ["pull", "resolve"]\n${line(theirs.url)}`;
    await scene.administrator(name, hosts, { "bundle.crt": bundle });
    registries.push({ what, name, itself, theirs });
  }
  const mirror = await scene.mirror({
    access: "open",
    containerdSocket: containerd.socket,
    env: { NODE_EXTRA_CA_CERTS: trusted },
  });
  for (const { what, name, itself, theirs } of registries) {
    await installed(containerd, name);
    await scene.pull(name);
    t.same(askers(theirs), ["containerd"], what);
    t.equal(await asked(mirror, name), 404, `${what}: a tag`);
    const { digest } = imageOf(what);
    const held = await fetch(`${mirror.url}/v2/app/manifests/${digest}?ns=${name}`);
    await held.body?.cancel();
    t.equal(held.status, 200, `${what}: what this node holds is served`);
    t.same(itself.requests, [], `${what}: nobody asked the registry itself`);
    t.match(mirror.log(), `${name}/hosts.toml`, `${what}: the log says which file`);
  }
  const metrics = await mirror.metrics();
  t.equal(metrics.sum("p2p_mirror_upstream_requests_total"), 0);
  t.ok(metrics.sum("p2p_mirror_http_requests_total") > 0, "the mirror was asked first");
}

const askers = (registry: OciRegistry): string[] => [
  ...new Set(
    registry.requests.map(({ headers }) => String(headers["user-agent"]).replace(/\/.*/, "")).toSorted(),
  ),
];

const imageOf = (seed: string): BuiltImage =>
  buildImage({ repository: "app", tag: "v1", seed, layerSizes: [5000] });

/** What a client gets for a tag that nobody has. */
async function asked(mirror: Mirror, registry: string): Promise<number> {
  const { status, body } = await fetch(`${mirror.url}/v2/nobody/has/manifests/it?ns=${registry}`);
  await body?.cancel();
  return status;
}

const installed = (containerd: Containerd, name: string): Promise<unknown> =>
  until(
    "the mirror is first in the new file",
    async () =>
      (await readFile(path.join(containerd.certsDir, name, "hosts.toml"), "utf8")).includes(">>> p2p-mirror"),
    { timeoutMs: 60_000 },
  );

for (const component of CONTAINERDS) {
  await t.test(component, async (t) => {
    const components = await need(t, { root: true, components: [component] });
    if (components === undefined) return;
    for (const [title, run] of Object.entries(CASES)) {
      // It waits for the mirror's next look, whichever containerd it is.
      if (run === changes && component !== "containerd-2.x") continue;
      await t.test(title, async (t) => {
        await using containerd = await startContainerd({ component: components(component) });
        await using cri = createCri(containerd.socket);
        await run(t, {
          containerd,
          async registry(name, options) {
            const registry = await startOciRegistry(options);
            t.teardown(() => registry.close());
            registry.push(imageOf(name));
            return registry;
          },
          async administrator(name, hosts, files = {}) {
            const folder = path.join(containerd.certsDir, name);
            await mkdir(folder, { recursive: true });
            for (const [file, text] of Object.entries(files)) await writeFile(path.join(folder, file), text);
            await writeFile(path.join(folder, "hosts.toml"), hosts);
          },
          async mirror(options = {}) {
            const own = options.upstreams === undefined ? ["--hosts-dir", containerd.certsDir] : [];
            const mirror = await startMirror({ ...options, flags: own });
            t.teardown(() => mirror.close());
            return mirror;
          },
          pull: (name) => cri.pull(`${name}/app:v1`),
        });
      });
    }
  });
}
