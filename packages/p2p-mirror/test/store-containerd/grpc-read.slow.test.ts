import { createHash } from "node:crypto";
import { once } from "node:events";
import { status } from "@grpc/grpc-js";
import t from "tap";
import { InvalidInputError } from "@p2p-mirror/shared";
import { FakeContainerd } from "./support/fake-containerd.ts";
import { until } from "../../../../test/rig/until.ts";
import { listAll, readAll, startStore } from "./support/store.ts";

const MIB = 1024 * 1024;

const bytesOf = (seed: string, size: number): Buffer =>
  createHash("shake128", { outputLength: size }).update(seed).digest();

await t.test(
  "a slow reader holds containerd back: a handful of messages are on their way, not the blob",
  async (t) => {
    await using fake = await FakeContainerd.create();
    await fake.start();
    const bytes = bytesOf("slow", 64 * MIB);
    const digest = fake.put(bytes);
    await using watched = await startStore({ socket: fake.socket });
    const body = await watched.store.read(digest, { start: 0, end: bytes.length });
    if (body === undefined) throw new TypeError("held");
    await once(body, "readable");
    let before = -1;
    await until("containerd is held back", () => {
      const same = before === fake.reads.written;
      before = fake.reads.written;
      return same;
    });
    t.ok(fake.reads.written <= 16, `${fake.reads.written} of 64 messages written with nobody reading`);
    const hash = createHash("sha256");
    for await (const chunk of body) if (Buffer.isBuffer(chunk)) hash.update(chunk);
    t.equal(`sha256:${hash.digest("hex")}`, digest);
  },
);

await t.test("destroying the body cancels the call although the next message never comes", async (t) => {
  await using fake = await FakeContainerd.create();
  await fake.start();
  const bytes = bytesOf("leave", 3 * MIB);
  const digest = fake.put(bytes);
  await using watched = await startStore({ socket: fake.socket });
  fake.script = (call) => {
    call.write({ data: bytes.subarray(0, MIB) });
    call.write({ data: bytes.subarray(MIB, 2 * MIB) });
  };
  const body = await watched.store.read(digest, { start: 0, end: bytes.length });
  if (body === undefined) throw new TypeError("held");
  body.resume();
  await once(body, "data");
  body.destroy();
  await until("cancelled", () => fake.reads.cancelled === 1);

  const controller = new AbortController();
  const aborted = await watched.store.read(
    digest,
    { start: 0, end: bytes.length },
    { signal: controller.signal },
  );
  if (aborted === undefined) throw new TypeError("held");
  const failed = once(aborted, "error");
  controller.abort(new Error("client left"));
  t.match(await failed, [{ name: "AbortError" }]);
  await until("cancelled", () => fake.reads.cancelled === 2);
});

await t.test("silence in the middle of a blob ends in STALLED, before the first byte as well", async (t) => {
  await using fake = await FakeContainerd.create();
  await fake.start();
  const bytes = bytesOf("stall", 3 * MIB);
  const digest = fake.put(bytes);
  await using watched = await startStore({ socket: fake.socket, stallMs: 700 });
  fake.script = (call) => {
    call.write({ data: bytes.subarray(0, MIB) });
    call.write({ data: bytes.subarray(MIB, 2 * MIB) });
  };
  await t.rejects(readAll(watched.store, digest, { start: 0, end: bytes.length }), { code: "STALLED" });
  fake.script = () => undefined;
  await t.rejects(watched.store.read(digest, { start: 0, end: bytes.length }), { code: "STALLED" });
  await t.rejects(
    watched.store.read(digest, { start: 1, end: 2 }),
    { code: "STALLED" },
    "the hash run for a part",
  );
  fake.script = undefined;
  t.ok(
    (await readAll(watched.store, digest, { start: 0, end: bytes.length }))?.equals(bytes),
    "and it works again",
  );
});

await t.test("containerd dying in the middle of a blob ends in CUT, never in a short body", async (t) => {
  await using fake = await FakeContainerd.create();
  await fake.start();
  const bytes = bytesOf("die", 3 * MIB);
  const digest = fake.put(bytes);
  await using watched = await startStore({ socket: fake.socket });
  fake.script = (call) => {
    call.write({ data: bytes.subarray(0, MIB) });
    call.write({ data: bytes.subarray(MIB, 2 * MIB) });
  };
  const body = await watched.store.read(digest, { start: 0, end: bytes.length });
  if (body === undefined) throw new TypeError("held");
  await t.rejects(
    async () => {
      for await (const _ of body) fake.stop();
    },
    { code: "CUT" },
  );
});

await t.test("a new connection, or the end of the store, does not cut reads that go on", async (t) => {
  await using fake = await FakeContainerd.create();
  await fake.start();
  const bytes = bytesOf("goes on", 24 * MIB);
  const digest = fake.put(bytes);
  await using watched = await startStore({ socket: fake.socket, timeoutMs: 1_000 });
  await until("connected", () => watched.store.connected);
  const bodies = await Promise.all(
    [0, 1].map(() => watched.store.read(digest, { start: 0, end: bytes.length })),
  );
  const [first, second] = bodies;
  if (first === undefined || second === undefined) throw new TypeError("held");
  fake.frozen = true;
  t.equal(await watched.store.stat(digest), undefined, "one question was not answered in time");
  await until("away", async () => (await watched.metric("p2p_mirror_containerd_up")) === 0);
  fake.frozen = false;
  t.ok(Buffer.concat(await first.toArray()).equals(bytes));
  await until("back", async () => (await watched.metric("p2p_mirror_containerd_up")) === 1);
  await watched.store.close();
  t.ok(Buffer.concat(await second.toArray()).equals(bytes));
});

await t.test(
  "wrong, short and long blobs are not served, whole or in part, and are asked for once",
  async (t) => {
    const right = bytesOf("right", 2 * MIB + 5);
    const wrong = Buffer.from(right);
    wrong.writeUInt8(wrong.readUInt8(MIB) ^ 1, MIB);
    const cases: [string, Buffer, string][] = [
      ["one wrong bit", wrong, "DIGEST_MISMATCH"],
      ["too short", right.subarray(0, right.length - 1), "SIZE_MISMATCH"],
      ["empty", Buffer.alloc(0), "SIZE_MISMATCH"],
      ["too long", Buffer.concat([right, Buffer.from("x")]), "SIZE_MISMATCH"],
    ];
    for (const [name, sent, code] of cases) {
      for (const range of [
        { start: 0, end: right.length },
        { start: 3, end: 5 },
      ]) {
        await using fake = await FakeContainerd.create();
        await fake.start();
        const digest = fake.put(right);
        fake.script = (call) => {
          if (sent.length > 0) call.write({ data: sent.subarray(0, MIB) });
          if (sent.length > MIB) call.write({ data: sent.subarray(MIB) });
          call.end();
        };
        await using watched = await startStore({ socket: fake.socket });
        let got = 0;
        const reading = async (): Promise<void> => {
          for await (const chunk of (await watched.store.read(digest, range)) ?? []) {
            got += Buffer.isBuffer(chunk) ? chunk.length : 0;
          }
        };
        if (range.start === 0) await t.rejects(reading(), { name: "IntegrityError", code }, name);
        else
          t.equal(
            await watched.store.read(digest, range),
            undefined,
            `${name}: known before there is a stream`,
          );
        t.equal(await watched.metric("p2p_mirror_containerd_corrupt_blobs_total"), 1);
        t.ok(range.start === 0 ? got <= MIB : got === 0, `${got} bytes left`);
        t.equal(await watched.store.stat(digest), undefined);
        t.same(await listAll(watched.store), []);
        t.match(watched.events.at(-1), { kind: "removed", digest });
        const asked = fake.calls.filter((call) => call === "Read").length;
        t.equal(await watched.store.read(digest, range), undefined);
        t.equal(fake.calls.filter((call) => call === "Read").length, asked, "not read again");
        fake.blobs.set(digest, { bytes: right, createdAt: 2 });
        fake.script = undefined;
        t.ok(await watched.store.stat(digest), "got again by containerd, it counts again");
        t.ok((await readAll(watched.store, digest, { start: 0, end: right.length }))?.equals(right));
      }
    }
  },
);

await t.test("parts of a blob asked for at once cost one hash run; later ones none", async (t) => {
  await using fake = await FakeContainerd.create();
  await fake.start();
  const bytes = bytesOf("parts", 3 * MIB);
  const digest = fake.put(bytes);
  await using watched = await startStore({ socket: fake.socket });
  const parts = await Promise.all(
    [0, 1, 2, 3].map((index) =>
      readAll(watched.store, digest, { start: index * 10 + 1, end: index * 10 + 6 }),
    ),
  );
  for (const [index, part] of parts.entries())
    t.ok(part?.equals(bytes.subarray(index * 10 + 1, index * 10 + 6)));
  t.equal(fake.calls.filter((call) => call === "Read").length, 5, "one for the hash, four for the parts");
  await readAll(watched.store, digest, { start: 0, end: 10 });
  t.equal(fake.calls.filter((call) => call === "Read").length, 6);
});

await t.test("one who leaves does not end the hash run for the others; the last one does", async (t) => {
  await using fake = await FakeContainerd.create();
  await fake.start();
  const bytes = bytesOf("leaving", 2 * MIB);
  const digest = fake.put(bytes);
  await using watched = await startStore({ socket: fake.socket });
  const resume: (() => void)[] = [];
  fake.script = (call, offset, size) => {
    call.write({ data: bytes.subarray(offset, offset + Math.min(size, MIB)) });
    resume.push(() => {
      if (size > MIB) call.write({ data: bytes.subarray(offset + MIB, offset + size) });
      call.end();
    });
    if (size <= MIB) resume.at(-1)?.();
  };
  const first = new AbortController();
  const second = watched.store.read(digest, { start: 5, end: 9 });
  const left = watched.store.read(digest, { start: 1, end: 3 }, { signal: first.signal });
  await until("the hash run began", () => resume.length === 1);
  first.abort(new Error("left"));
  await t.rejects(left, { message: "left" });
  resume[0]?.();
  const body = await second;
  t.ok(body !== undefined);
  body?.destroy();

  fake.blobs.delete(digest);
  t.equal(await watched.store.stat(digest), undefined);
  fake.put(bytes);
  const only = new AbortController();
  const reads = resume.length;
  const { cancelled } = fake.reads;
  const alone = watched.store.read(digest, { start: 1, end: 3 }, { signal: only.signal });
  await until("a blob that went and came back is hashed again", () => resume.length === reads + 1);
  only.abort(new Error("left"));
  await t.rejects(alone, { message: "left" });
  await until("cancelled", () => fake.reads.cancelled > cancelled);
});

await t.test("a blob that vanished between stat and read is undefined, and told to be gone", async (t) => {
  await using fake = await FakeContainerd.create();
  await fake.start();
  const bytes = bytesOf("vanish", 100);
  await using watched = await startStore({ socket: fake.socket });
  for (const range of [
    { start: 0, end: 100 },
    { start: 5, end: 6 },
    { start: 5, end: 5 },
  ]) {
    const digest = fake.put(bytes);
    t.ok(await watched.store.stat(digest));
    fake.blobs.delete(digest);
    t.equal(await watched.store.read(digest, range), undefined);
    t.match(watched.events.at(-1), { kind: "removed", digest });
  }
});

await t.test(
  "an error of containerd itself is no absence: the read fails, the blob stays known",
  async (t) => {
    await using fake = await FakeContainerd.create();
    await fake.start();
    const digest = fake.put(Buffer.from("xyz"));
    await using watched = await startStore({ socket: fake.socket });
    fake.script = (call) => void call.emit("error", { code: status.UNKNOWN, details: "disk on fire" });
    await t.rejects(watched.store.read(digest, { start: 0, end: 3 }), {
      name: "SourceError",
      code: "STATUS",
    });
    t.ok(await watched.store.stat(digest));
  },
);

await t.test("ranges outside the blob are refused, the empty blob and empty ranges are read", async (t) => {
  await using fake = await FakeContainerd.create();
  await fake.start();
  const digest = fake.put(Buffer.from("xyz"));
  const empty = fake.put(Buffer.alloc(0));
  await using watched = await startStore({ socket: fake.socket });
  for (const [start, end] of [
    [-1, 2],
    [0, 4],
    [3, 2],
  ] as const) {
    await t.rejects(watched.store.read(digest, { start, end }), InvalidInputError);
  }
  t.equal((await readAll(watched.store, digest, { start: 3, end: 3 }))?.length, 0);
  t.equal((await readAll(watched.store, empty, { start: 0, end: 0 }))?.length, 0);
});

await t.test("a message larger than containerd ever sends is refused", async (t) => {
  await using fake = await FakeContainerd.create();
  await fake.start();
  const digest = fake.put(Buffer.alloc(17 * MIB));
  await using watched = await startStore({ socket: fake.socket });
  fake.script = (call) => {
    call.write({ data: Buffer.alloc(17 * MIB) });
    call.end();
  };
  await t.rejects(watched.store.read(digest, { start: 0, end: 17 * MIB }), { code: "STATUS" });
});
