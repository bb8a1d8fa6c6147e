/**
 * The doctor before real containerds, healthy ones and ones with each of the mistakes: what it says of their configuration,
 * and the canary, which shows whether that is so.
 */
import { mkdir } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { readContainerdConfig } from "../packages/p2p-mirror/src/doctor/containerd-config.ts";
import { parseVersion } from "../packages/p2p-mirror/src/doctor/subject.ts";
import type { DoctorReport, MirrorStatus } from "../packages/p2p-mirror/src/status.ts";
import { run } from "../packages/p2p-mirror/test/cli/terminal.ts";
import type { ComponentName } from "./rig/components.ts";
import { startContainerd, type ContainerdOptions } from "./rig/containerd.ts";
import { createCri } from "./rig/cri.ts";
import { exec } from "./rig/exec.ts";
import { makeImage, pushImage, type Content } from "./rig/images.ts";
import { startMirror, writeClusterSecret, type Mirror } from "./rig/mirror.ts";
import { need } from "./rig/need.ts";
import { createNetwork } from "./rig/netns.ts";
import { buildImage, startOciRegistry } from "./rig/oci-registry.ts";
import { freePort } from "./rig/ports.ts";
import { pullImage } from "./rig/pull.ts";
import { tempFolder } from "./rig/temp.ts";
import { until } from "./rig/until.ts";

const CONTAINERDS: readonly ComponentName[] = ["containerd-1.7", "containerd-2.1", "containerd-2.x"];

interface Case {
  readonly options: (certsDir: string, is1: boolean) => Partial<ContainerdOptions>;
  /** Checks that find something; by default in all containerds. */
  readonly finds: readonly string[] | ((is1: boolean) => readonly string[]);
  /** An image is pulled before, which the mirror is not asked for. */
  readonly pulls?: boolean;
}

const CASES: Readonly<Record<string, Case>> = {
  "nothing is wrong": { options: () => ({}), finds: [] },
  "no config_path": {
    options: () => ({ configPath: "" }),
    finds: ["config-path", "canary", "never-asked"],
    pulls: true,
  },
  "a list of directories, which only the old way to pull understands": {
    options: (certsDir) => ({ configPath: `${certsDir}:/etc/docker/certs.d` }),
    finds: (is1) => (is1 ? [] : ["config-path", "canary"]),
  },
  "another directory": {
    options: (certsDir) => ({ configPath: `${certsDir}.other` }),
    finds: ["config-path", "canary"],
  },
  "layers are thrown away": {
    options: () => ({ discardUnpackedLayers: true }),
    finds: ["discarded-layers"],
  },
  "the mirrors from before hosts.toml": {
    options: (_, is1) => ({
      configPath: "",
      more: `[plugins."${is1 ? "io.containerd.grpc.v1.cri" : "io.containerd.cri.v1.images"}".registry.mirrors."docker.io"]\n  endpoint = ["https://mirror.example.test"]\n`,
    }),
    finds: ["config-path", "registry-mirrors", "canary"],
  },
};

const REGISTRY = "registry.example.test";
const LOOKED_AT = [
  "config-path",
  "registry-mirrors",
  "hosts-toml",
  "canary",
  "never-asked",
  "discarded-layers",
];

/** What is found without a containerd, but for the disk: how full that of this machine is, is its own affair. */
async function reportOf(mirror: Mirror): Promise<DoctorReport> {
  const flags = ["--admin", mirror.adminUrl, "--mirror", mirror.url, "--data-dir", mirror.dataDir];
  const { stdout } = await run(["doctor", "--json", "--containerd-socket", "none", ...flags]);
  const report: DoctorReport = JSON.parse(stdout);
  return { ...report, findings: report.findings.filter(({ check }) => check !== "disk") };
}

for (const component of CONTAINERDS) {
  await t.test(component, async (t) => {
    const components = await need(t, { root: true, components: [component] });
    if (components === undefined) return;
    const is1 = component.startsWith("containerd-1.");
    const certsDir = path.join(await tempFolder("doctor"), "certs.d");
    await mkdir(certsDir, { recursive: true });
    const mirror = await startMirror({ flags: ["--hosts-dir", certsDir] });
    t.teardown(() => mirror.close());
    const registry = await startOciRegistry();
    t.teardown(() => registry.close());
    registry.push(buildImage({ repository: "app", tag: "v1", seed: "past the mirror", layerSizes: [5000] }));
    const startedAt = Date.now();
    for (const [title, { options, finds, pulls = false }] of Object.entries(CASES)) {
      await t.test(title, async (t) => {
        await using containerd = await startContainerd({
          component: components(component),
          certsDir,
          ...options(certsDir, is1),
        });
        if (pulls) {
          // containerd's times are whole seconds, and an image of the mirror's first two could be from before it.
          await until("the image is clearly later", () => Date.now() > startedAt + 4_000);
          await using cri = createCri(containerd.socket);
          await cri.pull(`127.0.0.1:${registry.port}/app:v1`);
        }
        const flags = {
          "--admin": mirror.adminUrl,
          "--mirror": mirror.url,
          "--hosts-dir": certsDir,
          "--containerd-socket": containerd.socket,
          "--containerd-config": containerd.configFile,
          "--data-dir": mirror.dataDir,
        };
        const { stdout, exitCode, stderr } = await run(["doctor", "--json", ...Object.entries(flags).flat()]);
        t.equal(stderr, "");
        const report: DoctorReport = JSON.parse(stdout);
        const found = report.findings.map(({ check }) => check).filter((check) => LOOKED_AT.includes(check));
        const expected = typeof finds === "function" ? finds(is1) : finds;
        t.same(found, expected, JSON.stringify(report.findings.map(({ what, why }) => `${what}: ${why}`)));
        t.equal(exitCode, expected.includes("canary") ? 1 : 0);
        t.same(
          report.skipped.filter(({ check }) => LOOKED_AT.includes(check)),
          [],
        );
      });
    }
  });
}

for (const component of CONTAINERDS) {
  await t.test(`${component}: its configuration is read as it reads it itself`, async (t) => {
    const components = await need(t, { components: [component] });
    if (components === undefined) return;
    const { version, env } = components(component);
    const containerd = components(component).bin("containerd");
    const is1 = version.startsWith("1.");
    const images = is1 ? "io.containerd.grpc.v1.cri" : "io.containerd.cri.v1.images";
    const plugin = `plugins."${images}"`;
    const discard = is1 ? `${plugin}.containerd` : plugin;
    const head = `version = ${is1 ? 2 : 3}\n`;
    const dir = t.testdir({
      "config.toml": `${head}imports = ["drop/*.toml"]\n[${plugin}.registry]\n  config_path = "/main"\n`,
      "plain.toml": `${head}[${plugin}.registry]\n  config_path = "/main"\n[${discard}]\n  discard_unpacked_layers = true\n`,
      "none.toml": head,
      drop: { "a.toml": `${head}[${discard}]\n  discard_unpacked_layers = true\n` },
    });
    for (const file of ["config.toml", "plain.toml", "none.toml"]) {
      const { stdout } = await exec([containerd, "--config", path.join(dir, file), "config", "dump"], {
        env,
      });
      const dumped = stdout.slice(stdout.indexOf(images));
      const read = await readContainerdConfig(path.join(dir, file), parseVersion(version));
      const configPath = /config_path = ["'](.*?)["']/.exec(
        dumped.slice(dumped.search(/cri[^\n]*registry\]/)),
      )?.[1];
      t.equal(read.configPath, configPath, `${file}: config_path`);
      t.equal(read.discardUnpackedLayers, /discard_unpacked_layers = true/.test(dumped), `${file}: discard`);
    }
  });
}

await t.test("containerd-1.6: what is too old to pin images is said to be", async (t) => {
  const components = await need(t, { root: true, components: ["containerd-1.6"] });
  if (components === undefined) return;
  const component = components("containerd-1.6");
  await using containerd = await startContainerd({ component });
  const flags = ["--containerd-socket", containerd.socket, "--containerd-config", containerd.configFile];
  const { stdout } = await run(["doctor", "--json", "--admin", "http://127.0.0.1:9", ...flags]);
  const { findings, skipped }: DoctorReport = JSON.parse(stdout);
  const found = findings.filter(({ check }) => check === "containerd-version");
  // The distribution's is; the last ones of that series are not.
  const isOld = Number.parseInt(component.version.split(".")[2] ?? "", 10) < 25;
  t.match(found, isOld ? [{ severity: "warning", what: component.version, fix: /1\.6\.25/ }] : []);
  t.equal(found.length, isOld ? 1 : 0);
  t.notOk(skipped.some(({ check }) => check === "containerd-version"));
});

await t.test("a mirror with another cluster secret is found out", async (t) => {
  const dir = t.testdir({});
  const one = await startMirror({ secretFiles: [await writeClusterSecret(path.join(dir, "one"))] });
  t.teardown(() => one.close());
  const secretFiles = [await writeClusterSecret(path.join(dir, "two"))];
  const two = await startMirror({ secretFiles, bootstrap: [one.p2pAddress, "127.0.0.1:9"] });
  t.teardown(() => two.close());
  await until("both addresses were tried", async () => (await reportOf(two)).findings.length >= 2);
  const { findings, skipped } = await reportOf(two);
  const whats = findings.filter(({ check }) => check === "peers").map(({ what }) => what);
  t.match(whats.toSorted(), [/tcp\/\d+: (a mirror with another|no connection)/, /tcp\/\d+: /]);
  t.ok(whats.some((what) => what.includes("another cluster secret")));
  t.ok(whats.some((what) => what.includes("/tcp/9: no connection")));
  t.ok(skipped.some(({ check }) => check === "config-path" || check === "containerd-version"));
});

await t.test("what the mirror meets at registries is told: another time, a limit, no answer", async (t) => {
  const headers = { date: new Date(Date.now() + 7_200_000).toUTCString() };
  const ahead = await startOciRegistry({ faults: [{ headers }] });
  t.teardown(() => ahead.close());
  const limited = await startOciRegistry({ faults: [{ status: 429, retryAfter: "600", headers }] });
  t.teardown(() => limited.close());
  const away = `http://127.0.0.1:${await freePort()}`;
  const upstreams = { "ahead.test": ahead.url, "limited.test": limited.url, "away.test": away };
  const mirror = await startMirror({ upstreams });
  t.teardown(() => mirror.close());
  for (const registry of Object.keys(upstreams)) {
    const { status, body } = await fetch(`${mirror.url}/v2/nobody/has/manifests/it?ns=${registry}`);
    await body?.cancel();
    t.equal(status, 404, registry);
  }
  const { findings } = await reportOf(mirror);
  t.match(
    findings.toSorted((a, b) => a.what.localeCompare(b.what)),
    [
      { check: "upstream", severity: "warning", what: /^away\.test does not answer \(ECONNREFUSED/ },
      { check: "upstream", severity: "warning", what: /^limited\.test has limited .* asked again at 20/ },
      { check: "clock", severity: "broken", what: /clock is 7[01]\d\d s behind that of 2 of 2 registries/ },
    ],
  );
  t.equal(findings.length, 3);
});

await t.test("packets of full size are lost on the way to a peer, small ones are not", async (t) => {
  const components = await need(t, { netns: true });
  if (components === undefined) return;
  await using network = await createNetwork({ nodes: 2 });
  const upstream = await startOciRegistry({ host: network.hostAddress });
  t.teardown(() => upstream.close());
  const secretFiles = [await writeClusterSecret(path.join(t.testdir({}), "secret"))];
  const start = async (index: number, bootstrap: readonly string[]) => {
    const node = network.nodes[index];
    if (node === undefined) throw new TypeError("two nodes");
    // As this process reaches it.
    const from = `${node.address}:24220`;
    const flags = ["--registry-listen", from];
    const upstreams = { [REGISTRY]: upstream.url };
    const mirror = await startMirror({ node, secretFiles, upstreams, bootstrap, flags });
    t.teardown(() => mirror.close());
    const pull = (image: Content, reference: string) =>
      pullImage(image, { url: `http://${from}`, registry: REGISTRY, repository: "app", reference });
    return { node, mirror, pull };
  };
  const holder = await start(0, []);
  const other = await start(1, [holder.mirror.p2pAddress]);
  await until("they know each other", async () => {
    const { stdout } = await run(["status", "--json", "--admin", other.mirror.adminUrl]);
    const { peers }: MirrorStatus = JSON.parse(stdout);
    return peers.length === 1;
  });
  const images = ["fine", "lost-1", "lost-2", "lost-3", "lost-4"].map((tag) => ({
    tag,
    image: makeImage({ seed: tag, layers: [300_001, 300_002, 300_003] }),
  }));
  for (const { tag, image } of images) {
    await pushImage(image, { registry: upstream.url, repository: "app", tags: [tag] });
    await holder.pull(image, tag);
  }
  let findings: DoctorReport["findings"] = [];
  for (const { tag, image } of images) {
    await other.pull(image, tag);
    ({ findings } = await reportOf(other.mirror));
    if (tag !== "fine" && findings.length > 0) break;
    if (tag !== "fine") continue;
    t.same(findings, []);
    const scrape = await other.mirror.metrics();
    t.ok(scrape.sum("p2p_mirror_received_bytes_total", { source: "peer" }) > 300_000, "from the holder");
    await holder.node.losePacketsAbove(1400);
  }
  t.match(findings, [
    {
      check: "peers",
      severity: "warning",
      what: new RegExp(`at ${holder.node.address}:24221 can be connected to, and its last \\d+ answers`),
      why: /packets of full size may not get through/,
      fix: /compare the MTU of the nodes' interfaces \(ip link\), try ping -M do -s 1472 10\./,
    },
  ]);
});

await t.test("the daemon makes its rounds: metric, status, log", async (t) => {
  const mirror = await startMirror({ bootstrap: ["127.0.0.1:9"] });
  t.teardown(() => mirror.close());
  await until(
    "it has looked",
    async () => (await mirror.metrics()).sum("p2p_mirror_doctor_findings", { check: "peers" }) === 1,
    { timeoutMs: 60_000 },
  );
  const { stdout } = await run(["status", "--admin", mirror.adminUrl]);
  t.match(stdout, /^broken: bootstrap address .*no connection \[peers\]$/m);
  t.match(stdout, /^ {2}what to do: /m);
  t.match(mirror.log(), /the doctor has found something/);
});
