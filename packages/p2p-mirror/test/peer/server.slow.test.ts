import { request as httpsRequest, type RequestOptions } from "node:https";
import { Readable } from "node:stream";
import { connect as tlsConnect, type TLSSocket } from "node:tls";
import { IntegrityError, NotFoundError } from "@p2p-mirror/shared";
import type { Registry } from "prom-client";
import t from "tap";
import type { Peer } from "../../src/routing/router.ts";
import { until } from "../../../../test/rig/until.ts";
import { MemoryContent, metric, newBlob, newClient, newNode, read, startServer } from "./rig.ts";

const busySlots = { state: "busy" };
const SLOTS = "p2p_mirror_peer_upload_slots";
const SERVED = "p2p_mirror_peer_served_total";

/** More than the kernel's socket buffers of both sides hold. */
const LARGE = 64 * 1024 * 1024;
const large = newBlob(LARGE);

/** The server counts an answer when it is over, which may be a moment after the client has it. */
const served = (registry: Registry, outcome: string, count: number): Promise<true> =>
  until(`${count} are ${outcome}`, async () => (await metric(registry, SERVED, { outcome })) === count);

/** A member of the cluster with a socket of its own. */
async function member(t: { teardown(fn: () => void): void }, peer: Peer): Promise<TLSSocket> {
  const { tls } = await newNode();
  const socket = tlsConnect({ ...tls.clientOptions(peer.id), host: peer.host, port: peer.port });
  socket.on("error", () => undefined);
  t.teardown(() => void socket.destroy());
  await new Promise((resolve, reject) => void socket.once("secureConnect", resolve).once("error", reject));
  return socket;
}

async function ask(
  peer: Peer,
  options: RequestOptions,
  body?: string,
): Promise<{ status: number; text: string }> {
  const { tls } = await newNode();
  return new Promise((resolve, reject) => {
    const request = httpsRequest(
      { ...tls.clientOptions(peer.id), host: peer.host, port: peer.port, agent: false, ...options },
      (response) => {
        let text = "";
        response
          .on("data", (chunk: Buffer) => (text += chunk.toString()))
          .on("end", () => resolve({ status: response.statusCode ?? 0, text }))
          .on("error", reject);
      },
    );
    request.on("error", reject).end(body);
  });
}

await t.test("malformed requests are 4xx, without a look at the store", async (t) => {
  const local = new MemoryContent(large);
  let asked = 0;
  const blob = local.blob.bind(local);
  local.blob = (digest) => {
    asked += 1;
    return blob(digest);
  };
  const { peer, registry } = await startServer(t, local);
  local.piece = async () => {
    asked += 1;
    return undefined;
  };
  const path = `/p2p/v1/blobs/${large.digest}`;
  const wrongPieces = [
    "",
    large.digest,
    `${large.digest}/${LARGE}`,
    `${large.digest}/${LARGE}/`,
    `${large.digest}/${LARGE}/0/`,
    `${large.digest}/${LARGE}/0?x=1`,
    `${large.digest}/${LARGE}/00`,
    `${large.digest}/0${LARGE}/0`,
    `${large.digest}/${LARGE}/-1`,
    `${large.digest}/${LARGE}/1e1`,
    `${large.digest}/${LARGE}/0x1`,
    `${large.digest}/${LARGE}/%30`,
    `${large.digest}/${LARGE}/129`,
    `${large.digest}/${LARGE}/${"9".repeat(400)}`,
    `${large.digest}/0/0`,
    `${large.digest}/${"9".repeat(16)}/0`,
    `${large.digest.toUpperCase()}/${LARGE}/0`,
    `../${large.digest}/${LARGE}/0`,
    `sha256:${"a".repeat(63)}/${LARGE}/0`,
  ];
  const cases: [RequestOptions, number, string?][] = [
    [{ path: "/" }, 501],
    [{ path: "/v2/" }, 501],
    [{ path: `/p2p/v2/blobs/${large.digest}` }, 501],
    [{ path: "/p2p/v2/records?key=k" }, 501],
    [{ path: "/p2p/v1/blobs/" }, 400],
    [{ path: "/p2p/v1/blobs/../../etc/passwd" }, 400],
    [{ path: `/p2p/v1/blobs/${large.digest.toUpperCase()}` }, 400],
    [{ path: `${path}?x=1` }, 400],
    [{ path: `${path}/` }, 400],
    ...wrongPieces.map((piece): [RequestOptions, number] => [{ path: `/p2p/v1/pieces/${piece}` }, 400]),
    [{ path: `/p2p/v1/pieces/${large.digest}/${LARGE}/0`, method: "HEAD" }, 405],
    [{ path: `/p2p/v1/pieces/${large.digest}/${LARGE}/0`, method: "PUT" }, 405],
    [{ path: `/p2p/v1/piece/${large.digest}/${LARGE}/0` }, 501],
    [{ path: `/p2p/v1/blobs/sha256:${"a".repeat(63)}` }, 400],
    [{ path: "/p2p/v1/records" }, 501],
    [{ path: "/p2p/v1/records?" }, 400],
    [{ path: "/p2p/v1/records?key=" }, 400],
    [{ path: "/p2p/v1/records?key=a&key=b" }, 400],
    [{ path: `/p2p/v1/records?key=${"k".repeat(1025)}` }, 400],
    [{ path, method: "POST" }, 405],
    [{ path, method: "DELETE" }, 405],
    [{ path, method: "GET", headers: { "content-length": 3 } }, 400, "abc"],
    [{ path: `/${"x".repeat(9000)}` }, 431],
  ];
  for (const [options, status, body] of cases) {
    const name = `${options.method ?? "GET"} ${(options.path ?? "").slice(0, 60)}`;
    const answered = await ask(peer, options, body).catch(() => ({ status: 431, text: "" }));
    t.equal(answered.status, status, name);
  }
  t.equal(asked, 0);
  t.equal(await metric(registry, SERVED, { outcome: "refused" }), cases.length - 1);
});

await t.test("a Range that the RFC lets a server ignore gets the whole", async (t) => {
  const small = newBlob(100);
  const { peer } = await startServer(t, new MemoryContent(small));
  const path = `/p2p/v1/blobs/${small.digest}`;
  for (const range of ["bytes=5-2", "bytes=0-1,4-5", "lines=1-2", "bytes=", "bytes=a-b"]) {
    t.equal((await ask(peer, { path, headers: { range } })).status, 200, range);
  }
  t.equal((await ask(peer, { path, headers: { range: "bytes=-10" } })).status, 206);
  t.equal((await ask(peer, { path, headers: { range: "bytes=100-" } })).status, 416);
});

await t.test("a reader that takes nothing loses its slot after the limit", async (t) => {
  const { peer, registry } = await startServer(t, new MemoryContent(large), {
    uploadSlots: 1,
    readerStallMs: 150,
  });
  const socket = await member(t, peer);
  socket.pause();
  socket.write(`GET /p2p/v1/blobs/${large.digest} HTTP/1.1\r\nHost: x\r\n\r\n`);
  await until("it has the slot", async () => (await metric(registry, SLOTS, busySlots)) === 1);
  await until("it has lost it", async () => (await metric(registry, SLOTS, busySlots)) === 0);
  await served(registry, "stalled", 1);
});

await t.test("a slow reader that does go on keeps its slot", async (t) => {
  const { peer, registry } = await startServer(t, new MemoryContent(large), { readerStallMs: 400 });
  const { client } = await newClient(t, { highWaterMark: 1 });
  const { body } = await client.blob(peer, large.digest, undefined);
  let got = 0;
  const started = Date.now();
  for await (const chunk of body) {
    got += Buffer.isBuffer(chunk) ? chunk.byteLength : 0;
    // 24 MiB of 64, a little every few milliseconds, for longer than the limit; then as fast as it goes.
    const early = (got / (24 * 1024 * 1024)) * 1000 - (Date.now() - started);
    if (got < 24 * 1024 * 1024 && early > 0) await new Promise((resolve) => void setTimeout(resolve, early));
  }
  t.equal(got, LARGE);
  t.ok(Date.now() - started > 800, "the body took longer than the limit");
  await served(registry, "complete", 1);
});

await t.test("a client that leaves frees the slot and closes the source", async (t) => {
  const local = new MemoryContent(large);
  const { peer, registry } = await startServer(t, local, { uploadSlots: 1 });
  const { client } = await newClient(t);
  for (let i = 0; i < 3; i += 1) {
    const abort = new AbortController();
    const { body } = await client.blob(peer, large.digest, undefined, { signal: abort.signal });
    if (i === 0) abort.abort();
    else body.destroy();
    await until("the slot is free", async () => (await metric(registry, SLOTS, busySlots)) === 0);
    t.ok(local.opened[i]?.destroyed, "the source is closed");
  }
  await served(registry, "left", 3);
});

await t.test(
  "a source that breaks in the middle is a cut body: the reader has what was right, and FIN",
  async (t) => {
    const local = new MemoryContent(large);
    local.open = (bytes) =>
      Readable.from(
        (async function* chunks() {
          yield bytes.subarray(0, 500_000);
          await Promise.resolve();
          throw new IntegrityError("DIGEST_MISMATCH", "a", "b", "cache");
        })(),
        { objectMode: false },
      );
    const { peer, registry } = await startServer(t, local);
    const { client } = await newClient(t);
    const { body } = await client.blob(peer, large.digest, undefined);
    const got: Buffer[] = [];
    body.on("data", (chunk: Buffer) => got.push(chunk));
    const error: unknown = await new Promise((resolve) => void body.on("error", resolve).on("end", resolve));
    t.match(error, { code: "CUT" });
    t.match(error, { cause: { message: /other side closed/ } }, "the connection ended with FIN");
    t.ok(Buffer.concat(got).equals(large.bytes.subarray(0, 500_000)), "all that was right has arrived");
    await served(registry, "cut", 1);
  },
);

await t.test("a blob that proves corrupt or gone before its first byte is simply not held", async (t) => {
  const failures = [
    new IntegrityError("DIGEST_MISMATCH", "a", "b", "cache"),
    new NotFoundError("BLOB_UNKNOWN", "evicted just now"),
  ];
  for (const failure of failures) {
    const local = new MemoryContent(large);
    local.open = () => new Readable({ read: (): void => void 0 }).destroy(failure);
    const { peer, registry } = await startServer(t, local);
    const { client } = await newClient(t);
    await t.rejects(client.blob(peer, large.digest, undefined), NotFoundError);
    await served(registry, "not-found", 1);
    t.equal(await metric(registry, SLOTS, busySlots), 0);
  }
});

await t.test("a store that fails otherwise is a 500, and the server lives", async (t) => {
  const small = newBlob(10);
  const local = new MemoryContent(small);
  const blob = local.blob.bind(local);
  local.blob = async () => {
    throw new Error("disk on fire");
  };
  const { peer } = await startServer(t, local);
  const { client } = await newClient(t);
  await t.rejects(client.blob(peer, small.digest, undefined), { code: "STATUS", status: 500 });
  local.blob = blob;
  t.equal((await read((await client.blob(peer, small.digest, undefined)).body)).byteLength, 10);
});

await t.test("a source of more bytes than it said never breaks the framing", async (t) => {
  const local = new MemoryContent(large);
  local.open = (bytes, { start, end }) =>
    Readable.from([bytes.subarray(start, end - 10), bytes.subarray(end - 10, end + 1)], {
      objectMode: false,
    });
  const { peer, registry } = await startServer(t, local);
  const { client } = await newClient(t);
  const answer = await client.blob(peer, large.digest, { start: 0, end: 200_000 });
  await t.rejects(read(answer.body), { code: "CUT" });
  await served(registry, "cut", 1);
});

await t.test("close lets what is under way finish and takes nothing new", async (t) => {
  const local = new MemoryContent(large);
  const holder = { id: "12D3KooWother0000000000000000000000", host: "10.1.2.3", port: 24_221 };
  const deps = { others: () => [holder] };
  const { peer, close, registry } = await startServer(t, local, { drainMs: 5000 }, deps);
  const { client } = await newClient(t, { highWaterMark: 1 });
  const open = [await member(t, peer), await member(t, peer)];
  const { body } = await client.blob(peer, large.digest, undefined);
  const closing = close();
  for (const what of [`blobs/${large.digest}`, `pieces/${large.digest}/${LARGE}/0`]) {
    const other = open.pop();
    if (other === undefined) throw new Error("one too few");
    let answer = "";
    other.on("data", (chunk: Buffer) => (answer += chunk.toString()));
    other.write(`GET /p2p/v1/${what} HTTP/1.1\r\nHost: x\r\n\r\n`);
    await until("a connection that was open already is told to go", () => other.readableEnded);
    t.match(answer, /^HTTP\/1\.1 503 [^]*connection: close/i);
    t.ok(answer.endsWith(JSON.stringify({ tryInstead: [holder] })), "and where to");
  }
  await t.rejects(client.stat({ ...peer }, large.digest), { code: "UNREACHABLE" });
  t.ok((await read(body)).equals(large.bytes));
  await closing;
  await served(registry, "complete", 1);
});

await t.test("close cuts what does not finish within the drain time", async (t) => {
  const { peer, close, registry } = await startServer(t, new MemoryContent(large), { drainMs: 100 });
  const { client } = await newClient(t, { highWaterMark: 1 });
  const { body } = await client.blob(peer, large.digest, undefined);
  const started = Date.now();
  await close();
  t.ok(Date.now() - started < 2000, `it took ${Date.now() - started} ms`);
  await t.rejects(read(body), { code: "CUT" });
  await served(registry, "drained", 1);
  t.equal(await metric(registry, SLOTS, busySlots), 0);
});

await t.test("after everything is closed no socket, timer or server is left", async (t) => {
  const before = process.getActiveResourcesInfo().filter((name) => name !== "Immediate").length;
  const { peer, close } = await startServer(t, new MemoryContent(large));
  const { client, close: closeClient } = await newClient(t);
  const bodies = await Promise.all(
    [0, 1, 2].map((i) => client.blob(peer, large.digest, { start: i * 1000, end: 10_000_000 })),
  );
  await Promise.all(bodies.slice(1).map(({ body }) => read(body)));
  await closeClient();
  await close();
  await until("the rest is gone", () => {
    return process.getActiveResourcesInfo().filter((name) => name !== "Immediate").length <= before;
  });
  t.pass();
});
