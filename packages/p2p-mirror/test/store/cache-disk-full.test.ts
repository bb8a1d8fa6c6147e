import { execFileSync } from "node:child_process";
import fs from "node:fs/promises";
import path from "node:path";
import t, { type Test } from "tap";
import { digestOf } from "@p2p-mirror/shared";
import { seededBytes } from "../conformance/seeded.ts";
import { describeBytes, HUB, runCache, store, temporaryDir, type RunningCache } from "./cache-fixture.ts";

const MIB = 1024 * 1024;
const REMEDY =
  "needs root, to mount a small tmpfs: run the tests as root, or in `unshare --map-root-user --mount`";

/** A real file system of 8 MiB, or undefined (reported as skipped; a failure where CI=true) where none can be mounted. */
async function smallDisk(t: Test): Promise<string | undefined> {
  const dir = await temporaryDir(t);
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=8m", "p2p-mirror-test", dir], { stdio: "pipe" });
  } catch (error) {
    if (process.env["CI"] === "true") throw new Error(REMEDY, { cause: error });
    t.comment(`skipped: ${REMEDY}`);
    return undefined;
  }
  t.teardown(() => void execFileSync("umount", ["--lazy", dir]));
  return dir;
}

const isSkipped = (dir: string | undefined): string | false => (dir === undefined ? REMEDY : false);

/** Fills the disk to the last block. */
async function fill(dir: string): Promise<void> {
  const file = await fs.open(path.join(dir, "ballast"), "w");
  const block = Buffer.alloc(64 * 1024, 1);
  try {
    for (;;) await file.write(block);
  } catch {
    // Full.
  } finally {
    await file.close();
  }
}

async function reads(cache: RunningCache, bytes: Buffer): Promise<boolean> {
  const stream = await cache.store.read(digestOf(bytes), { start: 0, end: bytes.length });
  return stream !== undefined && Buffer.concat(await stream.toArray()).equals(bytes);
}

const disk = await smallDisk(t);

await t.test(
  "on a full disk nothing is stored, nothing fails, and what is held is served",
  { skip: isSkipped(disk) },
  async (t) => {
    if (disk === undefined) return;
    const dir = path.join(disk, "cache");
    const cache = await runCache(t, { dir });
    const [held, other] = [seededBytes("held", MIB), seededBytes("other", 2 * MIB)];
    t.ok(await store(cache, held));
    await fill(disk);

    t.equal(
      await cache.store.ingest(describeBytes(other), HUB),
      undefined,
      "declined, although the file would be sparse",
    );
    await cache.store.put(describeBytes(other), other, HUB);
    t.ok((await cache.metric('ingest_failures_total{reason="no_room"}')) >= 1);
    t.equal(await cache.store.stat(digestOf(other)), undefined);
    t.ok(await reads(cache, held), "what is held is served");
    for (let nth = 0; nth < 500; nth++) {
      const digest = digestOf(seededBytes(`tag ${nth}`, 1));
      cache.catalog.rememberTag({
        ...HUB,
        tag: `t${nth}`,
        descriptor: { digest, size: 1, mediaType: "x/y" },
        resolvedAt: nth,
      });
    }
    t.ok((await cache.metric("index_errors_total")) > 0, "the index met the full disk, and was counted");
    t.ok(await reads(cache, held));

    await fs.rm(path.join(disk, "ballast"));
    t.ok(await store(cache, other), "room again: stored again");
    await cache.close();
    const again = await runCache(t, { dir });
    t.ok((await reads(again, held)) && (await reads(again, other)), "all there after a restart");
    await again.close();
    await fs.rm(dir, { recursive: true });
  },
);

await t.test(
  "a disk that fills up under an ingest is an error to its writer only",
  { skip: isSkipped(disk) },
  async (t) => {
    if (disk === undefined) return;
    const dir = path.join(disk, "cache");
    const cache = await runCache(t, { dir });
    const bytes = seededBytes("under way", 2 * MIB);
    const ingest = await cache.store.ingest(describeBytes(bytes), HUB);
    if (ingest === undefined) throw new Error("there was room");
    await ingest.file.write(bytes, 0, MIB, 0);
    await fill(disk);
    await t.rejects(ingest.file.write(bytes, MIB, MIB, MIB), { code: "ENOSPC" });
    await ingest.release();
    t.same(await fs.readdir(path.join(dir, "ingest")), [], "its file is gone");
    t.ok(await store(cache, seededBytes("small", 100 * 1024)), "and what it held is room again");
    await cache.close();
    await fs.rm(path.join(disk, "ballast"));
    await fs.rm(dir, { recursive: true });
  },
);

for (const [what, size] of [
  ["that are kept", 2 ** 30],
  ["that are not kept", MIB],
] as const) {
  await t.test(
    `many ingests ${what} and begin at the same moment are promised no more than the disk has`,
    { skip: isSkipped(disk) },
    async (t) => {
      if (disk === undefined) return;
      const cache = await runCache(t, { dir: path.join(disk, "cache"), size, minFree: { bytes: 3 * MIB } });
      const blobs = Array.from({ length: 16 }, (_, nth) => seededBytes(`at once ${nth}`, MIB + 1));
      const granted = (
        await Promise.all(blobs.map((bytes) => cache.store.ingest(describeBytes(bytes), HUB)))
      ).filter((ingest) => ingest !== undefined);
      t.ok(granted.length >= 2, `${granted.length} have room`);
      t.ok(granted.every(({ keeps }) => keeps === size > MIB));
      for (const { file } of granted) await file.write(Buffer.alloc(MIB + 1, 1), 0, MIB + 1, 0);
      const { bavail, bsize } = await fs.statfs(disk);
      t.ok(bavail * bsize >= 3 * MIB, "when all are written, what is to be left free is free");
      await Promise.all(granted.map((ingest) => ingest.release()));
      t.ok(
        (await cache.store.ingest(describeBytes(seededBytes("after", MIB + 1)), HUB))?.keeps === size > MIB,
      );
      await cache.close();
      await fs.rm(path.join(disk, "cache"), { recursive: true });
    },
  );
}

await t.test("a full disk does not keep the mirror from starting", { skip: isSkipped(disk) }, async (t) => {
  if (disk === undefined) return;
  const dir = path.join(disk, "cache");
  const before = await runCache(t, { dir });
  const held = seededBytes("held", MIB);
  await store(before, held);
  await before.close();
  await fill(disk);
  const cache = await runCache(t, { dir });
  t.ok(await reads(cache, held));
  await cache.close();
  await fs.rm(dir, { recursive: true });

  await fill(disk);
  const fresh = await runCache(t, { dir: path.join(disk, "fresh") });
  await fresh.store.put(describeBytes(held), held, HUB);
  t.equal(
    await fresh.store.stat(digestOf(held)),
    undefined,
    "a new directory on a full disk: runs, stores nothing",
  );
  await fresh.close();
  await fs.rm(path.join(disk, "ballast"));
});

await t.test(
  "free space is left to others: least recently used blobs go for it",
  { skip: isSkipped(disk) },
  async (t) => {
    if (disk === undefined) return;
    const dir = path.join(disk, "cache");
    const cache = await runCache(t, { dir, minFree: { fraction: 0.5 } });
    const blobs = ["a", "b", "c", "d"].map((name) => seededBytes(name, MIB));
    for (const bytes of blobs) t.ok(await store(cache, bytes));
    const { bavail, bsize } = await fs.statfs(dir);
    t.ok(bavail * bsize >= 4 * MIB, "half of the disk is free");
    t.equal(await cache.metric('evictions_total{reason="free_space"}'), 1);
    t.equal(await cache.store.stat(digestOf(seededBytes("a", MIB))), undefined, "the oldest went");

    await fs.writeFile(path.join(disk, "others"), Buffer.alloc(1.5 * MIB));
    await cache.upkeep();
    const after = await fs.statfs(dir);
    t.ok(after.bavail * after.bsize >= 4 * MIB, "others wrote: the cache gave way");
    t.equal(cache.usage().blobs, 2);
    t.equal(await cache.store.ingest(describeBytes(seededBytes("huge", 5 * MIB)), HUB), undefined);
    t.equal(cache.usage().blobs, 2, "nothing was given up for what cannot fit");
  },
);
