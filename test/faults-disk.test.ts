/**
 * What lies on disk is wrong, or nothing more fits on it. A real containerd in front of two mirrors that keep what they
 * fetch in their own caches only.
 */
import { createHash } from "node:crypto";
import { mkdir, open, readdir, readFile, rm, stat, truncate, utimes, writeFile } from "node:fs/promises";
import path from "node:path";
import { codeOf } from "@p2p-mirror/shared/config";
import t, { type Test } from "tap";
import type { DoctorReport } from "../packages/p2p-mirror/src/status.ts";
import { run } from "../packages/p2p-mirror/test/cli/terminal.ts";
import { advertises, MIB, received, seconds } from "./faults-support.ts";
import { startContainerd, type Containerd } from "./rig/containerd.ts";
import { createCri, type Cri } from "./rig/cri.ts";
import { exec } from "./rig/exec.ts";
import { writeHosts } from "./rig/hosts.ts";
import { blobsOf, makeImage, pushImage, type Blob, type Content } from "./rig/images.ts";
import { startMirror, type Mirror } from "./rig/mirror.ts";
import { need } from "./rig/need.ts";
import { startOciRegistry, type OciRegistry } from "./rig/oci-registry.ts";
import { pullImage } from "./rig/pull.ts";
import { startShapedLink } from "./rig/shaped-link.ts";
import { until } from "./rig/until.ts";

const REGISTRY = "reg.example.test";

interface Scene {
  readonly upstream: OciRegistry;
  readonly containerd: Containerd;
  readonly cri: Cri;
  /** containerd's. */
  readonly mirror: Mirror;
  readonly peer: Mirror;
}

interface Pushed {
  readonly reference: string;
  readonly repository: string;
  readonly content: Content;
  /** The large one. */
  readonly layer: Blob;
}

const ballast = (dir: string): string => path.join(dir, "ballast");

let images = 0;

async function push(upstream: OciRegistry, layer: number): Promise<Pushed> {
  const repository = `disk/${++images}`;
  const content = makeImage({ seed: `${process.pid} ${repository}`, layers: [1000, layer] });
  await pushImage(content, { registry: upstream.url, repository, tags: ["v1"] });
  upstream.forget();
  const [largest] = blobsOf(content).toSorted((a, b) => b.descriptor.size - a.descriptor.size);
  if (largest === undefined) throw new TypeError("a layer");
  return { reference: `${REGISTRY}/${repository}:v1`, repository, content, layer: largest };
}

const pullFrom = (mirror: Mirror, { content, repository }: Pushed) =>
  pullImage(content, { url: mirror.url, registry: REGISTRY, repository, reference: "v1" });

const fileOf = (dir: string, { descriptor }: Blob): string =>
  path.join(dir, "blobs/sha256", descriptor.digest.slice("sha256:".length));
const cached = (mirror: Mirror, blob: Blob): string => fileOf(path.join(mirror.dataDir, "cache"), blob);

async function isRight(file: string, { descriptor }: Blob): Promise<boolean> {
  const bytes = await readFile(file).catch(() => Buffer.alloc(0));
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}` === descriptor.digest;
}

/** One wrong bit in the middle, and nothing in the file's times that would tell: what a worn disk does. */
async function rot(file: string): Promise<void> {
  const { size, atime, mtime } = await stat(file);
  const handle = await open(file, "r+");
  try {
    const byte = Buffer.alloc(1);
    const middle = Math.floor(size / 2);
    await handle.read(byte, 0, 1, middle);
    byte.writeUInt8(byte.readUInt8(0) ^ 1);
    await handle.write(byte, 0, 1, middle);
  } finally {
    await handle.close();
  }
  await utimes(file, atime, mtime);
}

/** The image as if containerd had never seen it; its mirror still has it. */
async function removeFromContainerd({ containerd, cri }: Scene, { reference, layer }: Pushed): Promise<void> {
  await cri.remove(reference);
  const file = fileOf(containerd.contentDir, layer);
  await until("containerd has removed the layer", () =>
    stat(file).then(
      () => false,
      () => true,
    ),
  );
}

const corrupt = async (mirror: Mirror): Promise<number> =>
  (await mirror.metrics()).sum("p2p_mirror_cache_corrupt_total");

await t.test("containerd-2.1: files of the cache are wrong", async (t) => {
  const components = await need(t, { root: true, components: ["containerd-2.1"] });
  if (components === undefined) return;
  await using stack = new AsyncDisposableStack();
  const upstream = stack.adopt(await startOciRegistry(), (it) => it.close());
  const upstreams = { [REGISTRY]: upstream.url };
  const peer = stack.use(await startMirror({ name: "peer", upstreams }));
  const mirror = stack.use(await startMirror({ name: "mirror", upstreams, bootstrap: [peer.p2pAddress] }));
  const containerd = stack.use(await startContainerd({ component: components("containerd-2.1") }));
  const cri = stack.use(createCri(containerd.socket));
  await writeHosts(containerd.certsDir, REGISTRY, { server: upstream.url, mirrors: [mirror.url] });
  const scene: Scene = { upstream, containerd, cri, mirror, peer };
  const held = async (t: Test, { layer }: Pushed): Promise<void> => {
    t.ok(await isRight(fileOf(containerd.contentDir, layer), layer), "containerd has the right bytes");
  };

  await t.test("rotten in the own node's cache: fetched again, and containerd notices nothing", async (t) => {
    const image = await push(upstream, 5 * MIB);
    await cri.pull(image.reference);
    await removeFromContainerd(scene, image);
    await mirror.stop();
    await rot(cached(mirror, image.layer));
    await mirror.start();
    upstream.forget();
    await cri.pull(image.reference);
    await held(t, image);
    t.equal(await corrupt(mirror), 1, "counted");
    t.ok(await isRight(cached(mirror, image.layer), image.layer), "the cache has the right bytes again");
    t.ok(
      upstream.requests.every((one) => one.headers["user-agent"]?.includes("containerd") !== true),
      "containerd had no need to ask upstream",
    );
  });

  await t.test("cut short in the own node's cache: the same, without a restart", async (t) => {
    const image = await push(upstream, 5 * MIB);
    await cri.pull(image.reference);
    await removeFromContainerd(scene, image);
    const before = await corrupt(mirror);
    await truncate(cached(mirror, image.layer), 3 * MIB);
    await cri.pull(image.reference);
    await held(t, image);
    t.equal(await corrupt(mirror), before + 1);
    t.ok(await isRight(cached(mirror, image.layer), image.layer));
  });

  await t.test("rotten in the serving peer's cache: fetched from upstream, the peer drops it", async (t) => {
    const image = await push(upstream, 5 * MIB);
    await pullFrom(peer, image);
    await peer.stop();
    await rot(cached(peer, image.layer));
    await peer.start();
    await advertises(peer, blobsOf(image.content).length + 1);
    await until("the peer is found", async () => (await mirror.metrics()).sum("p2p_mirror_dht_peers") === 1);
    const before = await received(mirror, "peer");
    await cri.pull(image.reference);
    await held(t, image);
    t.ok((await received(mirror, "peer")) > before, "it was asked, and gave what was right");
    t.equal(await corrupt(peer), 1);
    t.notOk(await isRight(cached(peer, image.layer), image.layer));
    t.equal(
      (await mirror.metrics()).sum("p2p_mirror_refuted_peers_total"),
      0,
      "an honest peer is not banned",
    );
  });

  await t.test(
    "rotten and larger than 64 MiB: at most the pull under way fails, the next one succeeds",
    async (t) => {
      const image = await push(upstream, 65 * MIB);
      await cri.pull(image.reference);
      await removeFromContainerd(scene, image);
      const before = await corrupt(mirror);
      await mirror.stop();
      await rot(cached(mirror, image.layer));
      await mirror.start();
      const first = await cri.pull(image.reference).then(
        () => "succeeded",
        (error: unknown) => `failed: ${String(error).slice(0, 300)}`,
      );
      t.comment(`the pull under way ${first}`);
      t.equal(await corrupt(mirror), 1, `found, after ${before} before`);
      // containerd keeps what it got of the failed pull until its garbage collection, some time within the next second.
      const began = performance.now();
      await until("the next pull succeeds", () => cri.pull(image.reference), { everyMs: 250 });
      t.comment(`the next pull succeeded after ${seconds(began)}`);
      await held(t, image);
      t.ok(await isRight(cached(mirror, image.layer), image.layer));
    },
  );
});

await t.test("the disk of the mirror is full", async (t) => {
  if ((await need(t, { root: true })) === undefined) return;

  await t.test("from the start: served, not stored, counted", async (t) => {
    const upstream = await registry(t);
    const mirror = await onSmallDisk(t, upstream.url, "12m");
    const image = await push(upstream, 20 * MIB);
    await pullFrom(mirror, image);
    t.ok((await mirror.metrics()).sum("p2p_mirror_unstored_blobs_total") >= 1, "counted");
    await nothingStored(t, mirror, image);
    await pullFrom(mirror, image);
  });

  await t.test(
    "to the last byte before the first start, and before the next: it starts, and serves",
    async (t) => {
      const upstream = await registry(t);
      const [first, second] = [await push(upstream, 2 * MIB), await push(upstream, 3 * MIB)];
      const mirror = await onSmallDisk(t, upstream.url, "8m", fill);
      await pullFrom(mirror, first);
      await nothingStored(t, mirror, first);
      t.match(mirror.log(), /this node's identity is new, and for this run only/, "warned");
      await mirror.stop();
      await rm(ballast(mirror.dataDir));
      await mirror.start();
      await pullFrom(mirror, first);
      await until("it is stored now", () => isRight(cached(mirror, first.layer), first.layer));
      await mirror.kill();
      await fill(mirror.dataDir);
      await mirror.start();
      const before = upstream.requests.filter(({ kind }) => kind === "blob").length;
      await pullFrom(mirror, first);
      t.equal(
        upstream.requests.filter(({ kind }) => kind === "blob").length,
        before,
        "what it held it serves",
      );
      await pullFrom(mirror, second);
      await nothingStored(t, mirror, second);
    },
  );

  await t.test("in the middle of a blob: the pull goes on, warned and counted", async (t) => {
    const upstream = await registry(t);
    const { hostname: host, port } = new URL(upstream.url);
    const link = await startShapedLink({ target: { host, port: Number(port) }, downRate: 30 * MIB });
    t.teardown(() => link.close());
    const mirror = await onSmallDisk(t, `http://${link.host}:${link.port}`, "120m");
    const image = await push(upstream, 70 * MIB);
    const began = performance.now();
    const pull = pullFrom(mirror, image);
    await until("the blob is under way", async () => (await received(mirror, "upstream")) > 10 * MIB, {
      everyMs: 5,
    });
    await writeFile(path.join(mirror.dataDir, "filler"), Buffer.alloc(120 * MIB)).catch(() => undefined);
    const { bytes } = await pull;
    t.comment(`${bytes} bytes in ${seconds(began)}`);
    const scrape = await mirror.metrics();
    t.ok(scrape.sum("p2p_mirror_unstored_blobs_total") >= 1, "counted");
    t.match(mirror.log(), /cannot store a blob, serving on without/, "warned");
    t.equal(scrape.sum("p2p_mirror_http_cuts_total"), 0, "the client noticed nothing");
    await nothingStored(t, mirror, image);
  });

  await t.test("no inode is left: served, not stored, and the doctor says why", async (t) => {
    const upstream = await registry(t);
    const [first, second] = [await push(upstream, MIB), await push(upstream, MIB)];
    const mirror = await onSmallDisk(t, upstream.url, "64m,nr_inodes=500");
    await pullFrom(mirror, first);
    await until("it is stored", () => isRight(cached(mirror, first.layer), first.layer));
    const took = await takeInodes(mirror.dataDir);
    t.comment(`${took} empty files took the rest`);
    await pullFrom(mirror, second);
    await nothingStored(t, mirror, second);
    t.ok((await mirror.metrics()).sum("p2p_mirror_unstored_blobs_total") >= 1, "counted");
    await pullFrom(mirror, first);
    const doctor = ["doctor", "--json", "--containerd-socket", "none"];
    const where = ["--admin", mirror.adminUrl, "--mirror", mirror.url, "--data-dir", mirror.dataDir];
    const { stdout } = await run([...doctor, ...where]);
    const { findings }: DoctorReport = JSON.parse(stdout);
    t.match(
      findings.filter(({ check }) => check === "disk"),
      [{ severity: "warning", what: `the file system of ${mirror.dataDir} has no inode left` }],
    );
  });
});

async function registry(t: Test): Promise<OciRegistry> {
  const upstream = await startOciRegistry();
  t.teardown(() => upstream.close());
  return upstream;
}

/** Takes what is left of the file system. */
async function fill(dir: string): Promise<void> {
  const file = await open(ballast(dir), "w");
  const block = Buffer.alloc(4096, 1);
  try {
    for (;;) await file.write(block);
  } catch {
    // Full.
  } finally {
    await file.close();
  }
}

/** Takes all inodes that are left, and says how many that were. */
async function takeInodes(dir: string): Promise<number> {
  await mkdir(ballast(dir));
  for (let taken = 0; ; taken += 1) {
    try {
      await writeFile(path.join(ballast(dir), String(taken)), "");
    } catch (error) {
      if (codeOf(error) !== "ENOSPC") throw error;
      return taken;
    }
  }
}

/** A mirror whose data lie on a disk of a size (mount options of tmpfs may follow); `before` does something to it before the first start. */
async function onSmallDisk(
  t: Test,
  upstream: string,
  size: string,
  before?: (dataDir: string) => Promise<void>,
): Promise<Mirror> {
  const dataDir = path.join(t.testdir(), "data");
  await mkdir(dataDir);
  await exec(["mount", "-t", "tmpfs", "-o", `size=${size}`, "tmpfs", dataDir]);
  let mirror: Mirror | undefined;
  t.teardown(async () => {
    try {
      await mirror?.close();
    } finally {
      await exec(["umount", dataDir]);
    }
  });
  await before?.(dataDir);
  mirror = await startMirror({
    dataDir,
    upstreams: { [REGISTRY]: upstream },
    flags: ["--cache-min-free", "0"],
  });
  return mirror;
}

async function nothingStored(t: Test, mirror: Mirror, { layer }: Pushed): Promise<void> {
  t.notOk(await isRight(cached(mirror, layer), layer), "the layer is not in the cache");
  await until("nothing is left of the attempt", async () => {
    const left = await readdir(path.join(mirror.dataDir, "cache/ingest")).catch(() => []);
    return left.length === 0;
  });
}
