import { mkdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { hexOf, type Digest } from "@p2p-mirror/shared";
import { findContentDir } from "../../src/store/containerd/content-dir.ts";
import { FakeContainerd } from "./support/fake-containerd.ts";
import { until } from "../../../../test/rig/until.ts";
import { kinds, listAll, readAll, startStore } from "./support/store.ts";

async function store(root: string, digest: Digest, bytes: Uint8Array): Promise<void> {
  await mkdir(path.join(root, "blobs/sha256"), { recursive: true });
  await writeFile(path.join(root, "blobs/sha256", hexOf(digest)), bytes);
}

const readsOf = (fake: FakeContainerd): number => fake.calls.filter((call) => call === "Read").length;

await t.test("the first directory counts in which a blob that containerd holds is seen", async (t) => {
  await using fake = await FakeContainerd.create();
  const [here, there] = [path.join(t.testdir({}), "here"), path.join(t.testdirName, "there")];
  const blob = { digest: fake.put(Buffer.from("held")), size: 4 };
  const gone = { digest: fake.put(Buffer.from("gone")), size: 4 };
  await store(there, blob.digest, Buffer.from("held"));
  t.equal(await findContentDir([here], [blob]), undefined);
  t.equal((await findContentDir([undefined, here, there], [gone, blob]))?.root, there);
  t.equal(await findContentDir([here, there], [{ ...blob, size: 5 }]), undefined, "of that size");
  t.equal(await findContentDir(["relative", ""], []), undefined);
  t.equal(
    (await findContentDir([here, there], []))?.root,
    here,
    "with nothing to look for, the first is taken",
  );
});

await t.test(
  "where the directory is as containerd says, files are read and containerd asked for none",
  async (t) => {
    await using fake = await FakeContainerd.create();
    await fake.start();
    fake.contentRoot = path.join(t.testdir({}), "content");
    const bytes = Buffer.from("some bytes");
    const digest = fake.put(bytes);
    await store(fake.contentRoot, digest, bytes);
    await using watched = await startStore({ socket: fake.socket, contentDir: undefined });
    const infos = fake.calls.filter((call) => call === "Info").length;
    t.ok(await watched.store.stat(digest));
    t.ok((await readAll(watched.store, digest, { start: 0, end: bytes.length }))?.equals(bytes));
    t.equal(readsOf(fake), 0);
    t.equal(fake.calls.filter((call) => call === "Info").length, infos, "a known blob needs no question");
  },
);

await t.test("a blob whose file is not seen, or of another size, comes over gRPC", async (t) => {
  await using fake = await FakeContainerd.create();
  await fake.start();
  fake.contentRoot = path.join(t.testdir({}), "content");
  const [seen, unseen, other] = ["seen", "unseen", "other"].map((text) => Buffer.from(text));
  if (seen === undefined || unseen === undefined || other === undefined) throw new TypeError("three");
  await store(fake.contentRoot, fake.put(seen), seen);
  const missing = fake.put(unseen);
  const longer = fake.put(other);
  await store(fake.contentRoot, longer, Buffer.from("other, but longer"));
  await using watched = await startStore({ socket: fake.socket, contentDir: undefined });
  t.ok((await readAll(watched.store, missing, { start: 0, end: unseen.length }))?.equals(unseen));
  t.ok((await readAll(watched.store, longer, { start: 0, end: other.length }))?.equals(other));
  t.equal(readsOf(fake), 2);
});

await t.test("with containerd away, known files are served, and only those", async (t) => {
  await using fake = await FakeContainerd.create();
  await fake.start();
  fake.contentRoot = path.join(t.testdir({}), "content");
  const bytes = Buffer.from("known");
  const [known, collected, unknown] = [
    fake.put(bytes),
    fake.put(Buffer.from("later")),
    fake.put(Buffer.from("x")),
  ];
  fake.blobs.delete(unknown);
  await store(fake.contentRoot, known, bytes);
  await store(fake.contentRoot, collected, Buffer.from("later"));
  await store(fake.contentRoot, unknown, Buffer.from("x"));
  await using watched = await startStore({ socket: fake.socket, contentDir: undefined });
  fake.stop();
  await until("away", async () => (await watched.metric("p2p_mirror_containerd_up")) === 0);
  await rm(path.join(fake.contentRoot, "blobs/sha256", hexOf(collected)));
  t.ok((await readAll(watched.store, known, { start: 1, end: 3 }))?.equals(bytes.subarray(1, 3)));
  t.same(await listAll(watched.store), [{ digest: known, size: bytes.length }]);
  t.equal(await watched.store.stat(unknown), undefined, "seen, but nobody said that this namespace holds it");
  t.equal(await watched.store.read(collected, { start: 0, end: 5 }), undefined);
  t.same(kinds(watched.events), ["reset"], "away is not gone");
});
