import { Buffer } from "node:buffer";
import type { Test } from "tap";
import {
  digestOf,
  IntegrityError,
  InvalidInputError,
  type ByteRange,
  type Digest,
  type DigestAlgorithm,
} from "@p2p-mirror/shared";
import type { ContentEvent, ContentStore, StoredBlob } from "../../src/store/content-store.ts";
import { seededBytes } from "./seeded.ts";
import { until } from "../../../../test/rig/until.ts";

/** A store under test and the hands that act on it from outside. */
export interface StoreFixture {
  readonly store: ContentStore;
  /** Puts a blob in, in the store's own way. The store may take a moment to know. */
  add(bytes: Uint8Array, digest: Digest): Promise<void>;
  /** Takes a blob out, in a way that may happen in production. The store may take a moment to know. */
  remove(digest: Digest): Promise<void>;
  /** Changes the bytes on disk behind the store's back. */
  tamper(digest: Digest, change: (bytes: Buffer) => Uint8Array): Promise<void>;
  /** The store as after a restart of this program: nothing counts as verified. The old one is closed. */
  reopen(): Promise<ContentStore>;
  /** Digest algorithms the store takes, default both. */
  readonly algorithms?: readonly DigestAlgorithm[] | undefined;
}

/** A few reads of 512 KiB, ending in the middle of one. */
const SEVERAL_CHUNKS = 3 * 512 * 1024 + 12_345;

const collect = async (
  store: ContentStore,
  digest: Digest,
  range: ByteRange,
): Promise<Buffer | undefined> => {
  const stream = await store.read(digest, range);
  return stream === undefined ? undefined : Buffer.concat(await stream.toArray());
};

interface Outcome {
  readonly bytes: number;
  readonly error: unknown;
  readonly held: boolean;
}

/** Reads as far as it goes. */
async function drain(store: ContentStore, digest: Digest, range: ByteRange): Promise<Outcome> {
  let bytes = 0;
  try {
    const stream = await store.read(digest, range);
    if (stream === undefined) return { bytes, error: undefined, held: false };
    for await (const chunk of stream) bytes += Buffer.isBuffer(chunk) ? chunk.length : Number.NaN;
    return { bytes, error: undefined, held: true };
  } catch (error) {
    return { bytes, error, held: true };
  }
}

const isPassedOver = async (store: ContentStore, digest: Digest, size: number): Promise<boolean> =>
  (await store.stat(digest)) === undefined &&
  (await store.read(digest, { start: 0, end: size })) === undefined;

async function hold(fixture: StoreFixture, bytes: Uint8Array, algorithm?: DigestAlgorithm): Promise<Digest> {
  const digest = digestOf(bytes, algorithm);
  await fixture.add(bytes, digest);
  await until(`${digest} is held`, async () => (await fixture.store.stat(digest)) !== undefined);
  return digest;
}

async function listed(store: ContentStore): Promise<StoredBlob[]> {
  const all: StoredBlob[] = [];
  for await (const blob of store.list()) all.push(blob);
  return all;
}

/**
 * What every ContentStore does. `makeStore` gives a running, empty-enough store (blobs of others do not disturb) and
 * registers its own teardown.
 */
export async function contentStoreConformance(
  t: Test,
  makeStore: (t: Test) => Promise<StoreFixture>,
): Promise<void> {
  await t.test("a held blob has its size, is listed, and reads as it went in", async (t) => {
    const fixture = await makeStore(t);
    for (const algorithm of fixture.algorithms ?? (["sha256", "sha512"] as const)) {
      for (const size of [1, 1000, SEVERAL_CHUNKS]) {
        const bytes = seededBytes(`${algorithm} ${size}`, size);
        const digest = await hold(fixture, bytes, algorithm);
        t.same(await fixture.store.stat(digest), { digest, size });
        const all = await listed(fixture.store);
        t.same(
          all.filter((one) => one.digest === digest),
          [{ digest, size }],
          "is listed once",
        );
        const read = await collect(fixture.store, digest, { start: 0, end: size });
        t.ok(read?.equals(bytes), `${algorithm}, ${size} bytes: the same bytes`);
      }
    }
  });

  await t.test("an unknown digest is undefined everywhere", async (t) => {
    const { store } = await makeStore(t);
    const digest = digestOf(seededBytes("nobody has this", 100));
    t.equal(await store.stat(digest), undefined);
    t.equal(await store.read(digest, { start: 0, end: 100 }), undefined);
    t.notOk((await listed(store)).some((one) => one.digest === digest));
  });

  await t.test("any range gives exactly its bytes, before and after the blob was verified", async (t) => {
    const fixture = await makeStore(t);
    const bytes = seededBytes("ranges", SEVERAL_CHUNKS);
    const digest = await hold(fixture, bytes);
    const store = await fixture.reopen();
    await until("held after a restart", async () => (await store.stat(digest)) !== undefined);
    const ranges: readonly ByteRange[] = [
      { start: 1, end: 2 },
      { start: 0, end: 1 },
      { start: 524_287, end: 524_289 },
      { start: SEVERAL_CHUNKS - 1, end: SEVERAL_CHUNKS },
      { start: 1000, end: SEVERAL_CHUNKS - 1000 },
      { start: 77, end: 77 },
      { start: 0, end: SEVERAL_CHUNKS },
    ];
    for (const round of ["first", "second"]) {
      for (const { start, end } of ranges) {
        const read = await collect(store, digest, { start, end });
        t.ok(read?.equals(bytes.subarray(start, end)), `${round} round: [${start}, ${end})`);
      }
    }
  });

  await t.test("a range outside the blob is refused", async (t) => {
    const fixture = await makeStore(t);
    const digest = await hold(fixture, seededBytes("outside", 10));
    for (const [start, end] of [
      [0, 11],
      [5, 4],
      [-1, 3],
    ] as const) {
      await t.rejects(fixture.store.read(digest, { start, end }), InvalidInputError, `[${start}, ${end})`);
    }
  });

  await t.test(
    "many readers at once, of parts and of all, each get their own bytes after a restart",
    async (t) => {
      const fixture = await makeStore(t);
      const bytes = seededBytes("many readers", SEVERAL_CHUNKS);
      const digest = await hold(fixture, bytes);
      const store = await fixture.reopen();
      await until("held after a restart", async () => (await store.stat(digest)) !== undefined);
      const reads = Array.from({ length: 12 }, async (_, nth) => {
        const range =
          nth % 3 === 0 ? { start: 0, end: bytes.length } : { start: nth * 1000, end: nth * 100_000 };
        const read = await collect(store, digest, range);
        t.ok(read?.equals(bytes.subarray(range.start, range.end)), `reader ${nth}`);
      });
      await Promise.all(reads);
    },
  );

  await t.test(
    "a flipped bit is never handed out whole, and the blob is not held from then on",
    async (t) => {
      const fixture = await makeStore(t);
      for (const at of [0, 600_000, SEVERAL_CHUNKS - 1]) {
        const bytes = seededBytes(`flipped ${at}`, SEVERAL_CHUNKS);
        const digest = await hold(fixture, bytes);
        await fixture.tamper(digest, (file) => {
          file.writeUInt8(file.readUInt8(at) ^ 1, at);
          return file;
        });
        const store = await fixture.reopen();
        await until("held, as far as anybody knows", async () => (await store.stat(digest)) !== undefined);
        const outcome = await drain(store, digest, { start: 0, end: bytes.length });
        t.ok(outcome.bytes < bytes.length, `byte ${at}: the tail was withheld (${outcome.bytes} bytes came)`);
        t.ok(!outcome.held || outcome.error instanceof IntegrityError, "it ended in IntegrityError");
        await until("not held any more", () => isPassedOver(store, digest, bytes.length));
      }
    },
  );

  await t.test("no byte of a part of a wrong blob is handed out, not even of a right part", async (t) => {
    const fixture = await makeStore(t);
    const bytes = seededBytes("wrong elsewhere", SEVERAL_CHUNKS);
    const digest = await hold(fixture, bytes);
    await fixture.tamper(digest, (file) => {
      file.writeUInt8(file.readUInt8(bytes.length - 1) ^ 128, bytes.length - 1);
      return file;
    });
    const store = await fixture.reopen();
    await until("held, as far as anybody knows", async () => (await store.stat(digest)) !== undefined);
    const outcomes = await Promise.all([
      drain(store, digest, { start: 0, end: 1000 }),
      drain(store, digest, { start: 1000, end: 600_000 }),
    ]);
    for (const outcome of outcomes) {
      t.equal(outcome.bytes, 0);
      t.ok(!outcome.held || outcome.error instanceof IntegrityError, "passed over, or IntegrityError");
    }
    await until("not held any more", () => isPassedOver(store, digest, bytes.length));
  });

  await t.test("a file cut short never looks like a complete blob", async (t) => {
    const fixture = await makeStore(t);
    for (const [name, length] of [
      ["by a byte", SEVERAL_CHUNKS - 1],
      ["to nothing", 0],
    ] as const) {
      const bytes = seededBytes(`cut ${name}`, SEVERAL_CHUNKS);
      const digest = await hold(fixture, bytes);
      await fixture.tamper(digest, (file) => file.subarray(0, length));
      const store = await fixture.reopen();
      const outcome = await drain(store, digest, { start: 0, end: bytes.length });
      t.ok(
        !outcome.held || outcome.error instanceof IntegrityError,
        `cut ${name}: passed over, or IntegrityError`,
      );
      await until("not held any more", () => isPassedOver(store, digest, bytes.length));
    }
  });

  await t.test("watchers hear of what comes and goes, until they stop", async (t) => {
    const fixture = await makeStore(t);
    const { store } = fixture;
    const heard: ContentEvent[] = [];
    const deaf: ContentEvent[] = [];
    t.teardown(store.watch((event) => heard.push(event)));
    const stop = store.watch((event) => deaf.push(event));
    const mine = (digest: Digest, kind: "added" | "removed"): boolean =>
      heard.some((event) =>
        event.kind === "added"
          ? kind === "added" && event.blob.digest === digest
          : event.kind === kind && "digest" in event && event.digest === digest,
      );

    const bytes = seededBytes("watched", 2000);
    const digest = await hold(fixture, bytes);
    await until("added is heard", () => mine(digest, "added"));
    t.match(
      heard.find((event) => event.kind === "added" && event.blob.digest === digest),
      { blob: { digest, size: 2000 } },
    );
    stop();
    const before = deaf.length;
    await fixture.remove(digest);
    await until("gone", async () => (await store.stat(digest)) === undefined);
    await until("removed is heard", () => mine(digest, "removed"));
    t.equal(deaf.length, before, "who stopped hears nothing");
    t.equal(await store.read(digest, { start: 0, end: 2000 }), undefined);
    t.notOk(
      (await listed(store)).some((one) => one.digest === digest),
      "not listed",
    );
  });

  await t.test("an aborted signal ends a read before and after its start, and no other", async (t) => {
    const fixture = await makeStore(t);
    const bytes = seededBytes("aborted", SEVERAL_CHUNKS);
    const digest = await hold(fixture, bytes);
    const store = await fixture.reopen();
    await until("held after a restart", async () => (await store.stat(digest)) !== undefined);
    const whole = { start: 0, end: bytes.length };
    await t.rejects(store.read(digest, whole, { signal: AbortSignal.abort() }), { name: "AbortError" });

    const controller = new AbortController();
    const [first, second] = await Promise.all([
      store.read(digest, whole, { signal: controller.signal }),
      store.read(digest, whole),
    ]);
    const reading = Promise.resolve(first?.toArray()).then(() => undefined);
    controller.abort();
    await t.rejects(reading, { name: "AbortError" });
    t.ok(Buffer.concat((await second?.toArray()) ?? []).equals(bytes), "the other reader has everything");

    const left = await store.read(digest, whole);
    left?.destroy();
    t.ok(
      (await collect(store, digest, whole))?.equals(bytes),
      "a reader that left without a byte hurts nobody",
    );
  });
}
