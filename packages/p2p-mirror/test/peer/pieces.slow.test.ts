import { createHash } from "node:crypto";
import { rm, writeFile } from "node:fs/promises";
import { Readable } from "node:stream";
import { BlockPool, consume, IntegrityError, NotFoundError } from "@p2p-mirror/shared";
import t from "tap";
import { NodeContent } from "../../src/transfer/local-content.ts";
import { BusyError } from "../../src/transfer/peer-client.ts";
import { until } from "../../../../test/rig/until.ts";
import { blobPath } from "../store/cache-fixture.ts";
import {
  aboutBlob,
  hashingNode,
  pieceContent,
  pieceHere,
  pieceOf,
  sha256,
  someHash,
  storingNode,
} from "./pieces-rig.ts";
import { MemoryContent, metric, newBlob, newClient, read, startServer } from "./rig.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
const blob = newBlob(3_300_001);
const { geometry } = aboutBlob(blob);
const SERVED = "p2p_mirror_peer_served_total";
const FETCHED = "p2p_mirror_peer_fetched_total";
const TRIPS = "p2p_mirror_peer_breaker_trips_total";

/** In a blob of this size a piece has 2 MiB, but for the first eight. */
const LARGE = 200 * MIB;
const large = (piece: number) => ({ size: LARGE, piece, length: piece < 8 ? 256 * KIB : 2 * MIB });
const largePiece = (piece: number) => pieceContent(Buffer.alloc(large(piece).length, piece), someHash(piece));

await t.test(
  "the pieces of a stored blob arrive byte for byte, with hashes that the holder's key proves",
  async (t) => {
    const holder = await storingNode(t, [blob]);
    const { peer, registry } = await startServer(t, holder.local, { uploadSlots: 4 });
    const { client, registry: asking } = await newClient(t);
    const known = (await hashingNode()).hashes(aboutBlob(blob));
    const got: Buffer[] = [];
    for (let piece = 0; piece < geometry.count; piece += 1) {
      const { wanted } = pieceOf(blob, piece);
      const { body, hash, load } = await client.piece(peer, blob.digest, wanted);
      const bytes = await read(body);
      t.equal(bytes.byteLength, wanted.length, `the length of piece ${piece}`);
      t.equal(load, 0);
      t.equal(hash?.signer, holder.id);
      t.ok(sha256(bytes).equals(hash?.sha256 ?? Buffer.alloc(0)), `piece ${piece} hashes so`);
      t.ok(hash !== undefined && known.learn(hash), `the signature of piece ${piece} is valid`);
      got.push(bytes);
    }
    t.equal(geometry.count, 26);
    t.ok(Buffer.concat(got).equals(blob.bytes));
    const complete = { kind: "piece", outcome: "complete" };
    t.equal(await metric(asking, FETCHED, complete), geometry.count);
    t.equal(await metric(asking, "p2p_mirror_peer_received_bytes_total"), blob.bytes.byteLength);
    t.equal(await metric(registry, "p2p_mirror_peer_sent_bytes_total"), blob.bytes.byteLength);
    await until("all are counted", async () => (await metric(registry, SERVED, complete)) === geometry.count);
  },
);

await t.test("one answer after the other comes in the same memory, and every byte is right", async (t) => {
  const holder = await storingNode(t, [blob]);
  const { peer } = await startServer(t, holder.local);
  const blocks = new BlockPool();
  const { client } = await newClient(t, { connectionsPerPeer: 1 }, { blocks });
  const memory = new Set<ArrayBufferLike>();
  const ROUNDS = 5;
  for (let nth = 0; nth < ROUNDS * geometry.count; nth += 1) {
    const { wanted, bytes } = pieceOf(blob, nth % geometry.count);
    const { body } = await client.piece(peer, blob.digest, wanted);
    const hash = createHash("sha256");
    await consume(body, (chunk) => {
      memory.add(chunk.buffer);
      hash.update(chunk);
      blocks.recycle(chunk);
      return true;
    });
    if (!hash.digest().equals(sha256(bytes))) t.fail(`answer ${nth} is wrong`);
  }
  const answers = ROUNDS * geometry.count;
  t.ok(memory.size < answers / 4, `${memory.size} blocks for ${answers} answers`);
});

await t.test("a stored piece is read for its hash once, and signed once", async (t) => {
  const holder = await storingNode(t, [blob]);
  const { peer } = await startServer(t, holder.local);
  const { client } = await newClient(t);
  const { wanted, bytes } = pieceOf(blob, 5);
  const signatures = new Set<string>();
  for (let nth = 0; nth < 3; nth += 1) {
    const { body, hash } = await client.piece(peer, blob.digest, wanted);
    t.ok((await read(body)).equals(bytes));
    signatures.add(Buffer.from(hash?.signature ?? []).toString("hex"));
  }
  t.equal(signatures.size, 1);
  const range = geometry.range(5, 5);
  t.same(holder.reads, [range, range, range, range], "one read more than answers");
});

await t.test("eight nodes that want all of a blob at once cost one hash of each piece", async (t) => {
  const holder = await storingNode(t, [blob]);
  const { peer } = await startServer(t, holder.local, { openMs: 10_000 });
  // Nine nodes in one process: their handshakes alone take a while on a busy machine.
  const patient = { connectionsPerPeer: 2, dialTimeoutMs: 10_000, firstByteMs: 10_000 };
  const nodes = await Promise.all(Array.from({ length: 8 }, () => newClient(t, patient)));
  await Promise.all(
    nodes.flatMap(({ client }) =>
      Array.from({ length: geometry.count }, async (_, piece) => {
        const { wanted, bytes } = pieceOf(blob, piece);
        const { body, hash } = await client.piece(peer, blob.digest, wanted);
        const got = await read(body);
        if (!got.equals(bytes) || !sha256(got).equals(hash?.sha256 ?? Buffer.alloc(0))) {
          throw new Error(`piece ${piece} is wrong`);
        }
      }),
    ),
  );
  t.equal(holder.reads.length, (8 + 1) * geometry.count);
});

await t.test("the hash of who fetched the piece goes on with it, and nothing is hashed", async (t) => {
  const [fetcher, holder] = [await hashingNode(), await storingNode(t, [blob])];
  const { wanted, bytes } = pieceOf(blob, 2);
  const source = fetcher.hashes(aboutBlob(blob));
  source.sign(2, sha256(bytes));
  const signed = source.of(2);
  t.ok(signed && holder.hashes(aboutBlob(blob)).learn(signed));
  const { peer } = await startServer(t, holder.local);
  const { client } = await newClient(t);
  const { body, hash } = await client.piece(peer, blob.digest, wanted);
  t.ok((await read(body)).equals(bytes));
  t.equal(hash?.signer, fetcher.id);
  t.same(
    { ...hash, sha256: [...(hash?.sha256 ?? [])], signature: [...(hash?.signature ?? [])] },
    {
      ...signed,
      sha256: [...(signed?.sha256 ?? [])],
      signature: [...(signed?.signature ?? [])],
    },
  );
  t.equal(holder.reads.length, 1);
});

await t.test("a piece of a flight is given as soon as it is there; until then it is not found", async (t) => {
  const here = new Map([[2, pieceOf(blob, 2).bytes]]);
  const holder = await storingNode(t, [], {
    flying: (digest, size) => {
      if (digest !== blob.digest || size !== blob.bytes.byteLength) return undefined;
      return {
        piece: (index) => {
          const bytes = here.get(index);
          return bytes && pieceHere(bytes, someHash(index));
        },
      };
    },
  });
  const { peer } = await startServer(t, holder.local);
  const { client, registry } = await newClient(t);
  const get = async (piece: number) => {
    const { body, hash } = await client.piece(peer, blob.digest, pieceOf(blob, piece).wanted);
    t.equal(hash?.signer, someHash(piece).signer);
    t.equal(hash?.piece, piece);
    return read(body);
  };
  t.ok((await get(2)).equals(pieceOf(blob, 2).bytes));
  for (let nth = 0; nth < 4; nth += 1) await t.rejects(get(3), NotFoundError);
  here.set(3, pieceOf(blob, 3).bytes);
  t.ok((await get(3)).equals(pieceOf(blob, 3).bytes));
  await t.rejects(client.blob(peer, blob.digest, undefined), NotFoundError, "the whole is not held");
  t.equal(await metric(registry, TRIPS), 0, "and that is no fault");
});

await t.test(
  "a piece of a flight that nobody else was there for is hashed when it is asked for, once",
  async (t) => {
    const { bytes, wanted } = pieceOf(blob, 2);
    const [here, wrong] = [pieceHere(bytes, undefined, 2), pieceHere(bytes, undefined)];
    const holder = await storingNode(t, [], {
      flying: () => ({ piece: (index) => (index === 2 ? here : index === 3 ? wrong : undefined) }),
    });
    const { peer } = await startServer(t, holder.local);
    const { client } = await newClient(t);
    const asked = await Promise.all(Array.from({ length: 3 }, () => client.piece(peer, blob.digest, wanted)));
    for (const { body, hash } of asked) {
      t.ok(sha256(bytes).equals(hash?.sha256 ?? new Uint8Array()));
      t.ok((await read(body)).equals(bytes));
    }
    t.equal(here.reads, asked.length + 1);
    const other = client.piece(peer, blob.digest, pieceOf(blob, 3).wanted);
    await t.rejects(other, NotFoundError, "what has no hash all the same is not given");
  },
);

await t.test("the flight comes before the store, the store has what the flight does not", async (t) => {
  const flown = Buffer.alloc(128 * KIB, 7);
  const holder = await storingNode(t, [blob], {
    flying: () => ({ piece: (index) => (index === 0 ? pieceHere(flown, someHash(0)) : undefined) }),
  });
  const { peer } = await startServer(t, holder.local);
  const { client } = await newClient(t);
  const first = await client.piece(peer, blob.digest, pieceOf(blob, 0).wanted);
  t.ok((await read(first.body)).equals(flown));
  t.same(holder.reads, []);
  const second = await client.piece(peer, blob.digest, pieceOf(blob, 1).wanted);
  t.ok((await read(second.body)).equals(pieceOf(blob, 1).bytes));
});

await t.test("a blob of another size is not found, and takes no room among the hashes", async (t) => {
  const holder = await storingNode(t, [blob]);
  const { peer } = await startServer(t, holder.local);
  const { client } = await newClient(t);
  const { wanted } = pieceOf(blob, 1);
  for (const size of [blob.bytes.byteLength - 1, blob.bytes.byteLength + 1, LARGE]) {
    await t.rejects(client.piece(peer, blob.digest, { ...wanted, size }), NotFoundError, `${size} bytes`);
  }
  await t.rejects(client.piece(peer, newBlob(10).digest, wanted), NotFoundError, "another blob");
  t.same(holder.sizes, []);
  t.same(holder.reads, []);
});

await t.test("a blob of one byte has one piece, an empty one has none", async (t) => {
  const [one, none] = [newBlob(1), newBlob(0)];
  const holder = await storingNode(t, [one, none]);
  const { peer } = await startServer(t, holder.local);
  const { client } = await newClient(t);
  const { body, hash } = await client.piece(peer, one.digest, { size: 1, piece: 0, length: 1 });
  t.ok((await read(body)).equals(one.bytes));
  t.ok(sha256(one.bytes).equals(hash?.sha256 ?? Buffer.alloc(0)));
  await t.rejects(client.piece(peer, none.digest, { size: 0, piece: 0, length: 0 }), {
    code: "STATUS",
    status: 400,
  });
});

await t.test("a stored blob that has rotted, or was deleted, has no pieces to give", async (t) => {
  const [rotten, gone] = [newBlob(600_000), newBlob(600_000)];
  const holder = await storingNode(t, [rotten, gone]);
  await writeFile(blobPath(holder.cache.dir, rotten.digest), newBlob(600_000).bytes);
  const { peer, registry } = await startServer(t, holder.local);
  const { client } = await newClient(t);
  await t.rejects(client.piece(peer, rotten.digest, pieceOf(rotten, 1).wanted), NotFoundError);
  const { body } = await client.piece(peer, gone.digest, pieceOf(gone, 1).wanted);
  t.ok((await read(body)).equals(pieceOf(gone, 1).bytes));
  await rm(blobPath(holder.cache.dir, gone.digest));
  await t.rejects(
    client.piece(peer, gone.digest, pieceOf(gone, 1).wanted),
    NotFoundError,
    "nor by a hash that was signed before",
  );
  await until(
    "both are counted",
    async () => (await metric(registry, SERVED, { outcome: "not-found" })) === 2,
  );
});

await t.test("a piece that goes away before its first byte is not found, later it is cut", async (t) => {
  const { wanted, bytes } = pieceOf(blob, 1);
  const local = new MemoryContent();
  const { peer, registry } = await startServer(t, local);
  const { client } = await newClient(t);
  const failures = [
    new NotFoundError("BLOB_UNKNOWN", "the flight is over"),
    new IntegrityError("DIGEST_MISMATCH", "a", "b", "cache"),
  ];
  for (const failure of failures) {
    local.pieces.set(
      1,
      pieceContent(bytes, someHash(1), () => new Readable({ read() {} }).destroy(failure)),
    );
    await t.rejects(client.piece(peer, blob.digest, wanted), NotFoundError);
  }
  for (const shift of [-1, 1]) {
    const other = Buffer.concat([bytes, bytes]).subarray(0, bytes.byteLength + shift);
    local.pieces.set(1, {
      ...pieceContent(bytes, someHash(1)),
      open: async () => Readable.from([other.subarray(0, 1000), other.subarray(1000)], { objectMode: false }),
    });
    const cut = await client.piece(peer, blob.digest, wanted);
    await t.rejects(read(cut.body), { code: "CUT" }, `${shift} byte`);
  }
  local.pieces.set(1, pieceContent(bytes, someHash(1)));
  const { client: another } = await newClient(t);
  const { body } = await another.piece(peer, blob.digest, wanted);
  t.ok((await read(body)).equals(bytes), "the server lives");
  t.equal(await metric(registry, SERVED, { outcome: "cut" }), 2);
});

await t.test("with all slots taken the next is told who else has it; small pieces still come", async (t) => {
  const other = { id: "12D3KooWother0000000000000000000000", host: "10.1.2.3", port: 24_221 };
  const local = new MemoryContent();
  for (const piece of [7, 8, 9]) local.pieces.set(piece, largePiece(piece));
  // No more than a few bytes are taken: the slot is held.
  const held = new Readable({ read() {} });
  held.push(Buffer.alloc(10));
  local.pieces.set(
    8,
    pieceContent(Buffer.alloc(2 * MIB), someHash(8), () => held),
  );
  const { peer, registry } = await startServer(t, local, { uploadSlots: 1 }, { others: () => [other] });
  const { client, registry: asking } = await newClient(t);
  const first = await client.piece(peer, blob.digest, large(8));
  const error: unknown = await client.piece(peer, blob.digest, large(9)).catch((cause: unknown) => cause);
  t.ok(error instanceof BusyError);
  t.match(error, { code: "BUSY", tryInstead: [other] });
  const small = await client.piece(peer, blob.digest, large(7));
  t.ok((await read(small.body)).equals(Buffer.alloc(256 * KIB, 7)));
  t.equal(small.load, 1, "and the load says so");
  first.body.destroy();
  await until("the slot is free again", async () => {
    return (await metric(registry, "p2p_mirror_peer_upload_slots", { state: "busy" })) === 0;
  });
  const again = await client.piece(peer, blob.digest, large(9));
  t.ok((await read(again.body)).equals(Buffer.alloc(2 * MIB, 9)));
  t.equal(await metric(asking, TRIPS), 0);
});

await t.test(
  "a piece whose hash takes too long is answered busy, is hashed no further, and comes when it is asked again",
  async (t) => {
    let hanging = true;
    const signals: (AbortSignal | undefined)[] = [];
    const holder = await storingNode(t, [blob], {
      beforeRead: async (_, signal) => {
        signals.push(signal);
        if (!hanging) return;
        await new Promise<void>((resolve) => {
          signal?.addEventListener("abort", () => resolve(), { once: true });
        });
        signal?.throwIfAborted();
      },
    });
    const { peer } = await startServer(t, holder.local, { openMs: 30 });
    const { client, registry } = await newClient(t);
    const { wanted, bytes } = pieceOf(blob, 4);
    // On a busy machine the time is over now and then before anything is read.
    for (let nth = 0; nth < 50 && signals.length < 3; nth += 1) {
      await t.rejects(client.piece(peer, blob.digest, wanted), { code: "BUSY" });
    }
    t.equal(signals.length, 3);
    await until("nothing is read for nobody", () => signals.every((signal) => signal?.aborted === true));
    hanging = false;
    // On a busy machine even this takes longer now and then.
    const { body } = await until("the piece comes", () => client.piece(peer, blob.digest, wanted));
    t.ok((await read(body)).equals(bytes));
    t.equal(await metric(registry, TRIPS), 0);
  },
);

await t.test("without hashes a node has no pieces of what it stores", async (t) => {
  const { cache } = await storingNode(t, [blob]);
  const local = new NodeContent({
    stores: [cache.store],
    catalog: cache.catalog,
    records: { sign: () => "", verify: () => undefined },
  });
  const { signal } = new AbortController();
  t.equal(await local.piece(blob.digest, blob.bytes.byteLength, 0, { signal }), undefined);
});
