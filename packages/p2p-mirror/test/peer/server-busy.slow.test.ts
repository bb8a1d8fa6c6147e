import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { NotFoundError, type Digest } from "@p2p-mirror/shared";
import t from "tap";
import { VerifiedFiles } from "../../src/store/verified-file.ts";
import type { LocalContent } from "../../src/transfer/content.ts";
import { NodeContent } from "../../src/transfer/local-content.ts";
import { until } from "../../../../test/rig/until.ts";
import { pieceOf, sha256, storingNode } from "./pieces-rig.ts";
import { MemoryContent, metric, newBlob, newClient, read, startServer } from "./rig.ts";

const SERVED = "p2p_mirror_peer_served_total";
const TRIPS = "p2p_mirror_peer_breaker_trips_total";

await t.test(
  "a part of a blob that is being hashed is answered busy, not by silence, and comes when it is asked again",
  async (t) => {
    const blob = newBlob(8 * 1024 * 1024);
    const dir = await mkdtemp(join(tmpdir(), "p2p-hashing-"));
    t.teardown(() => rm(dir, { recursive: true }));
    const file = { path: join(dir, "blob"), digest: blob.digest, size: blob.bytes.byteLength };
    await writeFile(file.path, blob.bytes);
    const hashed: Digest[] = [];
    // Reads of 512 bytes: slow enough to take several requests.
    const files = new VerifiedFiles({
      source: "test",
      chunkBytes: 512,
      onVerified: ({ digest }) => hashed.push(digest),
    });
    t.teardown(() => files.close());
    const local: LocalContent = {
      blob: async () => ({
        size: file.size,
        source: "cache",
        open: async (range, { signal }) => {
          const body = await files.read(file, range, { signal });
          if (body === undefined) throw new NotFoundError("BLOB_UNKNOWN", file.digest);
          return body;
        },
      }),
      piece: async () => undefined,
      record: () => undefined,
    };
    const { peer, registry } = await startServer(t, local, { openMs: 20, uploadSlots: 1 });
    const { client, registry: asking } = await newClient(t);
    const range = { start: 3_000_000, end: 5_000_000 };
    let busy = 0;
    let bytes: Buffer | undefined;
    await until("the part comes", async () => {
      try {
        bytes = await read((await client.blob(peer, blob.digest, range)).body);
        return true;
      } catch (error) {
        t.match(error, { code: "BUSY" });
        busy += 1;
        return false;
      }
    });
    t.ok(bytes?.equals(blob.bytes.subarray(range.start, range.end)));
    t.ok(busy > 0, `it was busy ${busy} times`);
    t.same(hashed, [blob.digest], "hashed once, not once more for each request");
    t.equal(await metric(registry, SERVED, { outcome: "busy" }), busy);
    t.equal(await metric(asking, TRIPS), 0, "and it was nobody's fault");
  },
);

await t.test(
  "a piece of a blob that is being hashed is busy, too, and does not begin the hash again",
  async (t) => {
    const blob = newBlob(8 * 1024 * 1024);
    const { wanted, bytes } = pieceOf(blob, 20);
    const dir = await mkdtemp(join(tmpdir(), "p2p-hashing-"));
    t.teardown(() => rm(dir, { recursive: true }));
    const file = { path: join(dir, "blob"), digest: blob.digest, size: blob.bytes.byteLength };
    await writeFile(file.path, blob.bytes);
    const hashed: Digest[] = [];
    const files = new VerifiedFiles({
      source: "test",
      chunkBytes: 512,
      onVerified: ({ digest }) => hashed.push(digest),
    });
    t.teardown(() => files.close());
    const { cache, hashes } = await storingNode(t, []);
    const local = new NodeContent({
      stores: [
        {
          name: "cache",
          stat: async () => file,
          read: (_, range, options) => files.read(file, range, options),
          list: (options) => cache.store.list(options),
          watch: () => () => undefined,
        },
      ],
      catalog: cache.catalog,
      records: { sign: () => "", verify: () => undefined },
      hashes,
    });
    const { peer } = await startServer(t, local, { openMs: 20 });
    const { client, registry } = await newClient(t);
    let busy = 0;
    const { body, hash } = await until("the piece comes", async () => {
      try {
        return await client.piece(peer, blob.digest, wanted);
      } catch (error) {
        t.match(error, { code: "BUSY" });
        busy += 1;
        return false;
      }
    });
    t.ok((await read(body)).equals(bytes));
    t.ok(sha256(bytes).equals(hash?.sha256 ?? Buffer.alloc(0)));
    t.ok(busy > 0, `it was busy ${busy} times`);
    t.same(hashed, [blob.digest]);
    t.equal(await metric(registry, TRIPS), 0);
  },
);

await t.test("a body that its store gives after the busy answer is destroyed", async (t) => {
  const blob = newBlob(200_000);
  const body = Readable.from([blob.bytes], { objectMode: false });
  const opened = Promise.withResolvers<Readable>();
  const local: LocalContent = {
    blob: async () => ({ size: blob.bytes.byteLength, source: "cache", open: () => opened.promise }),
    piece: async () => undefined,
    record: () => undefined,
  };
  const { peer } = await startServer(t, local, { openMs: 20 });
  const { client } = await newClient(t);
  await t.rejects(client.blob(peer, blob.digest, undefined), { code: "BUSY" });
  opened.resolve(body);
  await until("it is destroyed", () => body.destroyed);
});

await t.test(
  "one connection too many takes the place of an idle one, or is told that the node is busy",
  async (t) => {
    const large = newBlob(64 * 1024 * 1024);
    const small = newBlob(10);
    const local = new MemoryContent(large, small);
    const { peer, registry } = await startServer(t, local, { maxConnections: 2 });
    const clients = [];
    for (let nth = 0; nth < 4; nth += 1) clients.push(await newClient(t, { highWaterMark: 1 }));
    const [idle, first, second, late] = clients.map(({ client }) => client);
    if (idle === undefined || first === undefined || second === undefined || late === undefined)
      throw new Error();
    await read((await idle.blob(peer, small.digest, undefined)).body);
    const bodies = [
      await first.blob(peer, large.digest, undefined),
      await second.blob(peer, large.digest, undefined),
    ];
    await t.rejects(late.blob(peer, small.digest, undefined), { code: "BUSY" });
    for (const { body } of bodies)
      t.ok((await read(body)).equals(large.bytes), "who was there is not disturbed");
    t.equal((await read((await late.blob(peer, small.digest, undefined)).body)).byteLength, 10);
    t.equal((await read((await idle.blob(peer, small.digest, undefined)).body)).byteLength, 10);
    t.equal(await metric(registry, SERVED, { outcome: "busy" }), 1);
    for (const { registry: asking } of clients) t.equal(await metric(asking, TRIPS), 0);
  },
);
