import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, open, stat, truncate } from "node:fs/promises";
import t, { type Test } from "tap";
import { digestOf, IntegrityError, type Digest } from "@p2p-mirror/shared";
import { contentStoreConformance } from "../packages/p2p-mirror/test/conformance/content-store.ts";
import { containerdFixture } from "./containerd-store/conformance.ts";
import {
  createLab,
  fileOf,
  fetchedOf,
  listed,
  originOf,
  readAll,
  type Lab,
  type Watched,
} from "./containerd-store/lab.ts";
import { HOST_ARCHITECTURE, makeImage, makeMultiArch, randomBytesOf } from "./rig/images.ts";
import { need } from "./rig/need.ts";
import { until } from "./rig/until.ts";

const VERSIONS = ["containerd-1.6", "containerd-1.7", "containerd-2.1", "containerd-2.x"] as const;

const added = (watched: Watched, digest: Digest): boolean =>
  watched.events.some((event) => event.kind === "added" && event.blob.digest === digest);
const removed = (watched: Watched, digest: Digest): boolean =>
  watched.events.some((event) => event.kind === "removed" && event.digest === digest);
const resets = (watched: Watched): number => watched.events.filter((event) => event.kind === "reset").length;

async function pullIsSeen(t: Test, lab: Lab): Promise<void> {
  const image = makeMultiArch({ seed: "pull", layers: [100_000, 3_000_000], compression: "gzip" });
  const reference = await lab.push(image, "team/app");
  const watched = await lab.store({ reconcileIntervalMs: 3_600_000, settleMs: 600_000 });
  await lab.cri.pull(reference);
  const pulled = performance.now();
  const expected = fetchedOf(image, HOST_ARCHITECTURE);
  // Neither the periodic comparison nor the one after events can help here.
  await until("each blob was told", () => expected.every(({ digest }) => added(watched, digest)));
  t.comment(`all ${expected.length} blobs told ${Math.round(performance.now() - pulled)} ms after the pull`);
  t.ok(performance.now() - pulled < 2_000, "within 2 s");

  const all = await listed(watched.store);
  for (const { digest, bytes } of expected) {
    t.ok(all.has(digest), `${digest} is listed`);
    t.same(await watched.store.stat(digest), { digest, size: bytes.length });
    const read = await readAll(watched.store, digest, { start: 0, end: bytes.length });
    t.ok(read?.equals(bytes), `${digest} reads right`);
    t.strictSame(await watched.store.originsOf(digest), [originOf("team/app")]);
  }
  const other = image.manifests.find((child) => child.descriptor.platform?.architecture === "arm64");
  t.ok(
    other !== undefined && !all.has(digestOf(other.bytes)),
    "the platform that was not fetched is not held",
  );
  t.equal(await watched.metric("p2p_mirror_containerd_reads_total", { way: "grpc" }), 0);
  t.ok((await watched.metric("p2p_mirror_containerd_reads_total", { way: "file" })) >= expected.length);
  t.equal(await watched.metric("p2p_mirror_containerd_blobs"), all.size);
  await watched.close();
}

async function readsOverGrpc(t: Test, lab: Lab): Promise<void> {
  const bytes = randomBytesOf("grpc", "blob", 20 * 1024 * 1024 + 17);
  const digest = await lab.ingest(bytes);
  const watched = await lab.store({ contentDir: "none" });
  const { store } = watched;
  const ranges = [
    [5_000_000, 5_000_001],
    [0, bytes.length],
    [0, 1],
    [bytes.length - 3, bytes.length],
    [1024 * 1024 - 1, 3 * 1024 * 1024 + 1],
    [7, 7],
  ];
  for (const [start = 0, end = 0] of ranges) {
    const read = await readAll(store, digest, { start, end });
    t.ok(read?.equals(bytes.subarray(start, end)), `[${start}, ${end})`);
  }
  t.equal(await watched.metric("p2p_mirror_containerd_reads_total", { way: "grpc" }), ranges.length);
  t.equal(await watched.metric("p2p_mirror_containerd_reads_total", { way: "file" }), 0);
  const wrongDir = await lab.store({ contentDir: "/nonexistent/content" });
  t.ok((await readAll(wrongDir.store, digest, { start: 0, end: bytes.length }))?.equals(bytes));
  t.equal(await wrongDir.metric("p2p_mirror_containerd_reads_total", { way: "grpc" }), 1);
  await Promise.all([watched.close(), wrongDir.close()]);
}

async function collectedIsFound(t: Test, lab: Lab): Promise<void> {
  const image = makeImage({ seed: "gc", layers: [50_000, 60_000] });
  const reference = await lab.push(image, "team/gone");
  await lab.cri.pull(reference);
  const blobs = fetchedOf(image, HOST_ARCHITECTURE);
  const quick = await lab.store({ reconcileIntervalMs: 3_600_000 });
  const byFile = await lab.store({ reconcileIntervalMs: 3_600_000, settleMs: 600_000 });
  const byGrpc = await lab.store({ reconcileIntervalMs: 3_600_000, settleMs: 600_000, contentDir: "none" });
  for (const { digest } of blobs) t.ok(await quick.store.stat(digest));
  await lab.cri.remove(reference);
  const start = performance.now();
  await until("each blob was told to be gone", () => blobs.every(({ digest }) => removed(quick, digest)));
  t.comment(`told ${Math.round(performance.now() - start)} ms after the removal`);
  for (const { digest, bytes } of blobs) {
    // These two were told nothing; they find out when they look.
    await until("the file is gone", () =>
      stat(fileOf(lab, digest)).then(
        () => false,
        () => true,
      ),
    );
    for (const { store } of [byFile, byGrpc]) {
      t.equal(await store.read(digest, { start: 0, end: bytes.length }), undefined);
      t.equal(await store.stat(digest), undefined);
    }
    t.ok(removed(byFile, digest) && removed(byGrpc, digest));
    t.notOk((await listed(quick.store)).has(digest));
  }
  await Promise.all([quick.close(), byFile.close(), byGrpc.close()]);
}

async function restartIsSurvived(t: Test, lab: Lab): Promise<void> {
  const bytes = randomBytesOf("restart", "blob", 300_000);
  const digest = await lab.ingest(bytes);
  const byFile = await lab.store();
  const byGrpc = await lab.store({ contentDir: "none" });
  t.equal(resets(byFile), 1);
  const all = { start: 0, end: bytes.length };
  await lab.containerd.kill();
  await until("both know", async () => (await byGrpc.store.stat(digest)) === undefined);
  await until("away is seen", async () => (await byFile.metric("p2p_mirror_containerd_up")) === 0);
  t.equal(await byGrpc.store.read(digest, all), undefined);
  t.same([...(await listed(byGrpc.store))], []);
  t.ok((await readAll(byFile.store, digest, all))?.equals(bytes), "files are read while containerd is away");
  t.ok((await listed(byFile.store)).has(digest));

  const early = await lab.store();
  t.equal(await early.store.stat(digest), undefined, "a store that never saw containerd holds nothing");
  await lab.containerd.restart();
  for (const watched of [byFile, byGrpc, early]) {
    const wanted = watched === early ? 1 : 2;
    await until("connected again and told so", () => resets(watched) === wanted);
    t.ok((await readAll(watched.store, digest, all))?.equals(bytes));
  }
  t.notOk(removed(byFile, digest), "a blob that was there all the time was never told to be gone");
  t.equal(await byFile.metric("p2p_mirror_containerd_connects_total"), 2);

  const later = makeImage({ seed: "later", layers: [10_000] });
  await lab.cri.pull(await lab.push(later, "team/later"));
  const [top] = fetchedOf(later, HOST_ARCHITECTURE);
  await until("events come again", () => top !== undefined && added(byFile, top.digest));
  await Promise.all([byFile.close(), byGrpc.close(), early.close()]);
}

async function spoil(file: string, at: number): Promise<void> {
  await chmod(file, 0o644);
  await using handle = await open(file, "r+");
  const byte = Buffer.alloc(1);
  await handle.read(byte, 0, 1, at);
  byte.writeUInt8(byte.readUInt8() ^ 0xff);
  await handle.write(byte, 0, 1, at);
}

async function corruptIsNotServed(t: Test, lab: Lab): Promise<void> {
  for (const contentDir of [undefined, "none"]) {
    const way = contentDir === undefined ? "file" : "gRPC";
    const image = makeImage({ seed: `corrupt ${way}`, layers: [2_500_000, 2_400_000, 2_300_000, 100] });
    const reference = await lab.push(image, "team/corrupt");
    await lab.cri.pull(reference);
    const [whole, part, short, small] = image.blobs
      .slice(1)
      .map(({ bytes }) => ({ digest: digestOf(bytes), bytes }));
    if (whole === undefined || part === undefined || short === undefined || small === undefined)
      throw new TypeError("four layers");
    await spoil(fileOf(lab, whole.digest), 2_400_000);
    await spoil(fileOf(lab, part.digest), 10);
    await truncate(fileOf(lab, short.digest), 1_000_000);
    await spoil(fileOf(lab, small.digest), 600);
    const watched = await lab.store({ contentDir });
    const { store } = watched;

    // A file of that size is hashed before there is a stream; over gRPC the stream ends in an error, its tail held back.
    const wrong = (blob: { digest: Digest; bytes: Buffer }, what: string): Promise<unknown> => {
      const read = readAll(store, blob.digest, { start: 0, end: blob.bytes.length });
      return way === "file"
        ? read.then((bytes) => t.equal(bytes, undefined, `${way}: ${what}`))
        : t.rejects(read, IntegrityError, `${way}: ${what}`);
    };
    await wrong(whole, "the whole");
    t.equal(await store.read(part.digest, { start: 1_000_000, end: 1_000_001 }), undefined, `${way}: a part`);
    await t.rejects(
      readAll(store, short.digest, { start: 0, end: short.bytes.length }),
      IntegrityError,
      `${way}: truncated`,
    );
    await wrong(small, "small");
    for (const { digest } of [whole, part, short, small]) {
      t.equal(await store.stat(digest), undefined, `${way}: passed over from then on`);
      t.equal(await store.read(digest, { start: 0, end: 1 }), undefined);
      t.notOk((await listed(store)).has(digest));
      t.ok(removed(watched, digest));
    }
    t.equal(await watched.metric("p2p_mirror_containerd_corrupt_blobs_total"), 4);

    await lab.cri.remove(reference);
    await until("collected", () =>
      stat(fileOf(lab, whole.digest)).then(
        () => false,
        () => true,
      ),
    );
    await lab.cri.pull(reference);
    await until("pulled again, it counts again", async () => (await store.stat(whole.digest)) !== undefined);
    const again = await readAll(store, whole.digest, { start: 0, end: whole.bytes.length });
    t.ok(again?.equals(whole.bytes));
    await lab.cri.remove(reference);
    await watched.close();
  }
}

async function onlyCommittedOfItsNamespace(t: Test, lab: Lab): Promise<void> {
  const foreign = await lab.ingest(randomBytesOf("foreign", "blob", 10_000), "other");
  const bytes = randomBytesOf("ingest", "blob", 1_000_000);
  const digest = digestOf(bytes);
  const args = ["--address", lab.containerd.socket, "--namespace", "k8s.io", "content", "ingest", "slow-ref"];
  const child = spawn(lab.ctr, args, { stdio: ["pipe", "ignore", "ignore"] });
  const ended = once(child, "exit");
  child.stdin.write(bytes.subarray(0, 500_000));
  await until("the ingest is open", async () =>
    (await lab.containerd.ctr(["content", "active"])).stdout.includes("slow-ref"),
  );
  const watched = await lab.store();
  t.equal(await watched.store.stat(digest), undefined);
  const before = await listed(watched.store);
  t.notOk(before.has(digest));
  t.notOk(before.has(foreign), "content of another namespace is not listed");
  t.equal(await watched.store.stat(foreign), undefined, "nor found, although its file can be seen");
  t.ok(await stat(fileOf(lab, foreign)));
  child.stdin.end(bytes.subarray(500_000));
  await ended;
  t.ok(await watched.store.stat(digest), "committed, it is");
  await watched.close();
}

async function originsLackPorts(t: Test, lab: Lab): Promise<void> {
  const image = makeImage({ seed: "port", layers: [1_000] });
  await lab.push(image, "team/port");
  await lab.containerd.ctr(["images", "pull", "--plain-http", `${lab.registryHost}/team/port:v1`]);
  const watched = await lab.store();
  for (const { digest } of fetchedOf(image, HOST_ARCHITECTURE)) {
    t.strictSame(await watched.store.originsOf(digest), [{ registry: "127.0.0.1", repository: "team/port" }]);
  }
  await watched.close();
}

async function discardedLayersAreFound(t: Test, lab: Lab): Promise<void> {
  const watched = await lab.store({ reconcileIntervalMs: 3_600_000 });
  const image = makeImage({ seed: "discarded", layers: [50_000, 60_000], compression: "gzip" });
  await lab.cri.pull(await lab.push(image, "team/discarded"));
  const [manifest, config, ...layers] = fetchedOf(image, HOST_ARCHITECTURE);
  if (manifest === undefined || config === undefined) throw new TypeError("an image has both");
  await until("what stays is told", () => added(watched, manifest.digest) && added(watched, config.digest));
  await until("no layer is held, nor said to be", async () => {
    const told = layers.every(({ digest }) => !added(watched, digest) || removed(watched, digest));
    const stats = await Promise.all(layers.map(({ digest }) => watched.store.stat(digest)));
    return told && stats.every((found) => found === undefined);
  });
  t.ok(await watched.store.stat(manifest.digest));
  t.ok(await watched.store.stat(config.digest));
  t.notOk(removed(watched, manifest.digest) || removed(watched, config.digest));
  await watched.close();
}

async function manyBlobs(t: Test, lab: Lab): Promise<void> {
  const image = makeImage({ seed: "many", layers: Array.from({ length: 120 }, (_, index) => 100 + index) });
  const reference = await lab.push(image, "team/many");
  await lab.containerd.ctr(["content", "fetch", "--hosts-dir", lab.containerd.certsDir, reference]);
  const watched = await lab.store();
  const all = await listed(watched.store);
  const missing = fetchedOf(image, HOST_ARCHITECTURE).filter(({ digest }) => !all.has(digest));
  t.same(
    missing.map(({ digest }) => digest),
    [],
    "all pages of the list arrive",
  );
  await watched.close();
}

const TESTS: readonly [string, (t: Test, lab: Lab) => Promise<void>][] = [
  ["a pull is told, held, and read from files", pullIsSeen],
  ["where the content directory is not seen, blobs come over gRPC", readsOverGrpc],
  ["what garbage collection takes is found, although containerd says nothing", collectedIsFound],
  ["corrupt and truncated blobs are not served, until they were pulled again", corruptIsNotServed],
  ["ingests and other namespaces are not seen", onlyCommittedOfItsNamespace],
  ["a list of several pages is whole", manyBlobs],
  ["origins carry the registry's host without its port: containerd's labels have no more", originsLackPorts],
  ["containerd killed and started again: reconnected, reset, nothing lost", restartIsSurvived],
];

/** End of life, but still in the field: what differs from 1.7 is asked, the rest is not. */
const SMOKE: readonly unknown[] = [pullIsSeen, collectedIsFound, restartIsSurvived];

for (const name of VERSIONS) {
  await t.test(name, async (t) => {
    const components = await need(t, { root: true, components: [name] });
    if (components === undefined) return;
    const smoke = name === "containerd-1.6";
    await t.test("normally configured", async (t) => {
      await using lab = await createLab(components(name));
      for (const way of smoke ? [] : ["as files", "over gRPC"]) {
        const contentDir = way === "as files" ? undefined : "none";
        await t.test(`conformance, read ${way}`, (t) =>
          contentStoreConformance(t, (t) => containerdFixture(t, lab, contentDir)),
        );
      }
      for (const [title, test] of TESTS) {
        if (!smoke || SMOKE.includes(test)) await t.test(title, (t) => test(t, lab));
      }
    });
    if (smoke) return;
    await t.test("with discard_unpacked_layers, layers are told to be gone", async (t) => {
      await using lab = await createLab(components(name), { discardUnpackedLayers: true });
      await discardedLayersAreFound(t, lab);
    });
  });
}
