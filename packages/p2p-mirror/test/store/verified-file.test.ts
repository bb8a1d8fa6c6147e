import fsBase from "node:fs";
import fs from "node:fs/promises";
import path from "node:path";
import { finished } from "node:stream/promises";
import t, { type Test } from "tap";
import {
  digestOf,
  IntegrityError,
  isRecycling,
  type Digest,
  type RecyclingReadable,
} from "@p2p-mirror/shared";
import { VerifiedFiles, type BlobFile } from "../../src/store/verified-file.ts";
import { seededBytes } from "../conformance/seeded.ts";
import { until } from "../../../../test/rig/until.ts";
import { temporaryDir } from "./cache-fixture.ts";

const CHUNK = 1024;
const realRead = fsBase.read;

interface Fixture {
  readonly files: VerifiedFiles;
  readonly file: BlobFile;
  readonly bytes: Buffer;
  /** Digests in the order in which they were hashed. */
  readonly hashed: Digest[];
  readonly corrupt: IntegrityError[];
}

/** `verifyFirstBytes` 0: a whole blob is hashed inline, as large ones are. */
async function makeFile(t: Test, size: number, verifyFirstBytes = 0, lingerMs?: number): Promise<Fixture> {
  const bytes = seededBytes(t.fullname, size);
  const file = { path: path.join(await temporaryDir(t), "blob"), digest: digestOf(bytes), size };
  await fs.writeFile(file.path, bytes);
  const hashed: Digest[] = [];
  const corrupt: IntegrityError[] = [];
  const files = new VerifiedFiles({
    source: "test",
    chunkBytes: CHUNK,
    verifyFirstBytes,
    lingerMs,
    onVerified: ({ digest }) => hashed.push(digest),
    onCorrupt: (_, error) => corrupt.push(error),
  });
  return { files, file, bytes, hashed, corrupt };
}

const openFiles = async (): Promise<number> => (await fs.readdir("/proc/self/fd")).length;

await t.test("a whole file is hashed the first time it is read, and not again", async (t) => {
  for (const size of [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 10 * CHUNK, 10 * CHUNK + 7]) {
    const { files, file, bytes, hashed } = await makeFile(t, size);
    for (const round of [1, 2, 3]) {
      const stream = await files.read(file, { start: 0, end: size });
      t.ok(Buffer.concat((await stream?.toArray()) ?? []).equals(bytes), `${size} bytes, round ${round}`);
    }
    t.same(hashed, [file.digest], `${size} bytes: hashed once`);
  }
});

await t.test(
  "parts asked at the same time share one hash run, and none sees a byte before its end",
  async (t) => {
    const { files, file, bytes, hashed } = await makeFile(t, 50 * CHUNK);
    const parts = Array.from({ length: 20 }, async (_, nth) => {
      const range = { start: nth * CHUNK, end: nth * CHUNK + 10 };
      const stream = await files.read(file, range);
      t.equal(hashed.length, 1, "hashed when the stream was given");
      t.ok(Buffer.concat((await stream?.toArray()) ?? []).equals(bytes.subarray(range.start, range.end)));
    });
    await Promise.all(parts);
    t.same(hashed, [file.digest]);
  },
);

const PART = { start: 5, end: 10 };

/** Two who ask for a part and leave before there is a byte. */
async function twoLeave({ files, file }: Fixture, t: Test): Promise<void> {
  const both = [new AbortController(), new AbortController()];
  const reads = both.map(({ signal }) => files.read(file, PART, { signal }));
  for (const controller of both) controller.abort();
  await Promise.all(reads.map((read) => t.rejects(read, { name: "AbortError" })));
}

await t.test("a hash run that nobody waits for any more goes on, for the next who asks", async (t) => {
  const fixture = await makeFile(t, 4000 * CHUNK);
  const { files, file, bytes, hashed } = fixture;
  await twoLeave(fixture, t);
  await until("the run came to its end by itself", () => hashed.length === 1);
  const stream = await files.read(file, PART);
  t.ok(Buffer.concat((await stream?.toArray()) ?? []).equals(bytes.subarray(5, 10)));
  t.same(hashed, [file.digest], "and was not made again");
});

await t.test("a hash run stops when its time without anybody is over, or its files are closed", async (t) => {
  const before = await openFiles();
  for (const lingerMs of [0, 60_000]) {
    const fixture = await makeFile(t, 4000 * CHUNK, 0, lingerMs);
    const { files, file, hashed } = fixture;
    const one = new AbortController();
    const first = files.read(file, PART, { signal: one.signal });
    const second = files.read(file, PART);
    one.abort();
    await t.rejects(first, { name: "AbortError" });
    await (await second)?.toArray();
    t.equal(hashed.length, 1, "it went on for the other one");

    files.forget(file.digest);
    await twoLeave(fixture, t);
    if (lingerMs > 0) await files.close();
    await until("every file is closed", async () => (await openFiles()) === before);
    t.equal(hashed.length, 1, "the second run did not come to its end");
  }
});

await t.test("a part asked after the reader of a whole left goes on with its hash", async (t) => {
  const { files, file, bytes, hashed } = await makeFile(t, 100 * CHUNK);
  const whole = await files.read(file, { start: 0, end: file.size });
  let got = 0;
  for await (const chunk of whole ?? []) {
    got += Buffer.isBuffer(chunk) ? chunk.length : 0;
    if (got >= 50 * CHUNK) break;
  }
  const reads: unknown[] = [];
  t.intercept(fsBase, "read", {
    value: (...args: unknown[]): unknown => {
      reads.push(args[4]);
      return Reflect.apply(realRead, fsBase, args);
    },
  });
  const stream = await files.read(file, PART);
  t.same(hashed, [file.digest]);
  t.ok(Number(reads[0]) >= 50 * CHUNK, `it begins at ${Number(reads[0])}`);
  t.ok(Buffer.concat((await stream?.toArray()) ?? []).equals(bytes.subarray(5, 10)));
});

await t.test("of a wrong file the last chunk never comes, wherever the wrong byte is", async (t) => {
  for (const at of [0, 5 * CHUNK, 10 * CHUNK - 1]) {
    const { files, file, bytes, corrupt } = await makeFile(t, 10 * CHUNK);
    bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
    await fs.writeFile(file.path, bytes);
    let received = 0;
    const stream = await files.read(file, { start: 0, end: file.size });
    stream?.on("data", (chunk: Buffer) => (received += chunk.length));
    await t.rejects(stream === undefined ? Promise.resolve() : finished(stream), IntegrityError);
    t.ok(received <= 9 * CHUNK, `byte ${at}: ${received} bytes came`);
    t.match(corrupt, [{ code: "DIGEST_MISMATCH", expected: file.digest, source: "test" }]);
  }
});

await t.test("of a small wrong file not even the first byte comes", async (t) => {
  const { files, file, bytes, hashed, corrupt } = await makeFile(t, 10 * CHUNK, 10 * CHUNK);
  const whole = { start: 0, end: file.size };
  const stream = await files.read(file, whole);
  t.same(hashed, [file.digest], "hashed before there is a stream");
  t.ok(Buffer.concat((await stream?.toArray()) ?? []).equals(bytes));
  bytes.writeUInt8(bytes.readUInt8(5) ^ 1, 5);
  await fs.writeFile(file.path, bytes);
  await t.rejects(files.read(file, whole), IntegrityError);
  t.equal(corrupt.length, 1);
});

await t.test("a file that shrinks while it is read ends in an error, verified or not", async (t) => {
  for (const verified of [false, true]) {
    const { files, file } = await makeFile(t, 2000 * CHUNK);
    if (verified) await files.verify(file);
    const stream = await files.read(file, { start: 0, end: file.size });
    const chunks = stream?.[Symbol.asyncIterator]();
    await chunks?.next();
    await fs.truncate(file.path, 100 * CHUNK);
    const rest = async (): Promise<void> => {
      while ((await chunks?.next())?.done === false);
    };
    await t.rejects(rest(), { code: "SIZE_MISMATCH" }, verified ? "verified" : "not verified");
  }
});

await t.test("a file that was replaced is hashed again, even by one of the same size", async (t) => {
  const { files, file, bytes, corrupt } = await makeFile(t, 3 * CHUNK);
  await files.verify(file);
  const other = `${file.path}.other`;
  await fs.writeFile(other, Buffer.alloc(bytes.length));
  await fs.rename(other, file.path);
  await t.rejects(files.read(file, { start: 0, end: 1 }), IntegrityError);
  t.equal(corrupt.length, 1);
});

await t.test("a file of the wrong size is wrong without reading it", async (t) => {
  const { files, file, corrupt } = await makeFile(t, 3 * CHUNK);
  await fs.appendFile(file.path, "x");
  await t.rejects(files.read(file, { start: 0, end: 1 }), { code: "SIZE_MISMATCH" });
  t.equal(corrupt.length, 1);
});

await t.test("no file stays open, however a read ends", async (t) => {
  const { files, file } = await makeFile(t, 100 * CHUNK);
  const whole = { start: 0, end: file.size };
  const before = await openFiles();
  for (let nth = 0; nth < 30; nth++) {
    const stream = await files.read(file, whole);
    if (stream === undefined) throw new Error("no file");
    if (nth % 3 === 0) stream.destroy();
    else if (nth % 3 === 1) await stream.toArray();
    else {
      await stream[Symbol.asyncIterator]().next();
      stream.destroy(new Error("reader left"));
    }
    if (nth % 10 === 0) files.forget(file.digest);
  }
  await t.rejects(files.read(file, { start: 0, end: file.size + 1 }));
  t.equal(await files.read({ ...file, path: `${file.path}.none` }, whole), undefined);
  await until("all closed", async () => (await openFiles()) === before);
});

await t.test("chunks that are given back are read into again, others never", async (t) => {
  const { files, file, bytes } = await makeFile(t, 200 * CHUNK);
  const whole = { start: 0, end: file.size };
  const open = async (): Promise<RecyclingReadable> => {
    const stream = await files.read(file, whole);
    if (stream === undefined || !isRecycling(stream)) throw new Error("no stream that recycles");
    return stream;
  };
  const keeper = await open();
  const kept: Buffer[] = [];
  keeper.on("data", (chunk: Buffer) => kept.push(chunk));

  const buffers = new Set<ArrayBufferLike>();
  const giver = await open();
  let at = 0;
  // Flowing: iterating would copy what is buffered into new chunks.
  giver.on("data", (chunk: Buffer) => {
    buffers.add(chunk.buffer);
    if (!chunk.equals(bytes.subarray(at, at + chunk.length))) t.fail(`wrong bytes at ${at}`);
    at += chunk.length;
    giver.recycle(chunk);
    giver.recycle(chunk);
    giver.recycle(Buffer.alloc(CHUNK));
    chunk.fill(0);
  });
  await finished(giver);
  t.equal(at, file.size);
  t.ok(buffers.size < 20, `${buffers.size} buffers for 200 chunks`);
  await until("the keeper has all", () => keeper.readableEnded);
  t.ok(Buffer.concat(kept).equals(bytes), "what was kept is what it was");
});

await t.test("what is remembered is bounded: the longest unused file is hashed again", async (t) => {
  const dir = await temporaryDir(t);
  const hashed: string[] = [];
  const files = new VerifiedFiles({
    source: "test",
    remember: 2,
    onVerified: ({ path: at }) => hashed.push(path.basename(at)),
  });
  for (const name of ["a", "b", "a", "c", "b"]) {
    const file = { path: path.join(dir, name), digest: digestOf(Buffer.from(name)), size: 1 };
    if (!hashed.includes(name)) await fs.writeFile(file.path, name);
    await (await files.read(file, { start: 0, end: 1 }))?.toArray();
  }
  t.same(hashed, ["a", "b", "c", "b"]);
});
