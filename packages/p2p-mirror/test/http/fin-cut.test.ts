import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import t, { type Test } from "tap";
import { request } from "undici";
import { SourceError } from "@p2p-mirror/shared";
import { until } from "../../../../test/rig/until.ts";
import { startEndpoint } from "./support/endpoint.ts";
import { RawClient, splitAnswer } from "./support/raw-client.ts";
import { chunked } from "./support/scripted-content.ts";

const lost = (): SourceError => new SourceError("CUT", "peer");

/** A body of `bytes` whose source is lost when it is asked for the chunk at `offset`, or later when `when` resolves. */
const losingAt =
  (bytes: Buffer, offset: number, when?: Promise<void>) =>
  async (range: { start: number; end: number }): Promise<Readable> =>
    chunked(bytes, range, async (at) => {
      if (at < offset) return;
      await when;
      throw lost();
    });

await t.test("rule 0.2: a source lost mid-body is FIN short of Content-Length, never RST", async (t) => {
  const { content, port, metric, log } = await startEndpoint(t);
  const bytes = randomBytes(300_000);
  const digest = content.addBlob(bytes, "peer", losingAt(bytes, 128 * 1024));
  const client = (await RawClient.open(port)).read().get(`/v2/a/blobs/${digest}?ns=ghcr.io`);
  t.equal(await client.ended(), "end");
  const { head, body } = splitAnswer(client.received);
  t.match(head, /^HTTP\/1\.1 200 OK/);
  t.match(head, /content-length: 300000/i);
  t.ok(body.byteLength > 0 && body.byteLength < 300_000, `${body.byteLength} bytes came`);
  t.ok(body.equals(bytes.subarray(0, body.byteLength)), "what came is right");
  t.equal(await metric("p2p_mirror_http_cuts_total", { reason: "source" }), 1);
  t.equal(log.at(50).length, 0, "no error: a lost source is not a fault of this program");
});

await t.test(
  "rule 0.2: FIN also behind megabytes that the client has not read yet, all of which arrive",
  async (t) => {
    const { content, port, metric } = await startEndpoint(t);
    const bytes = randomBytes(64 * 1024 * 1024);
    let blocked = 0;
    const { promise: lose, resolve } = Promise.withResolvers<void>();
    const digest = content.addBlob(bytes, "upstream", async (range) =>
      chunked(bytes, range, async (at) => {
        blocked = at;
        // Far more than any socket buffer: the source only gets here once the client reads.
        if (at >= 16 * 1024 * 1024) {
          await lose;
          throw lost();
        }
      }),
    );
    const client = (await RawClient.open(port)).get(`/v2/a/blobs/${digest}?ns=ghcr.io`);
    await until("the source is held back by the unread client", async () => {
      const before = blocked;
      await new Promise((resolve) => setTimeout(resolve, 30));
      return before > 0 && before === blocked;
    });
    t.ok(blocked < 16 * 1024 * 1024, `backpressure: ${blocked} bytes taken from the source`);
    resolve();
    client.read();
    t.equal(await client.ended(), "end");
    const { body } = splitAnswer(client.received);
    t.ok(
      body.byteLength > 15 * 1024 * 1024 && body.byteLength <= 16 * 1024 * 1024,
      `${body.byteLength} bytes`,
    );
    t.ok(body.equals(bytes.subarray(0, body.byteLength)), "what came is right");
    t.equal(await metric("p2p_mirror_http_cuts_total"), 1);
  },
);

await t.test("rule 0.2: FIN although the client reads nothing while the source is lost", async (t) => {
  const { content, port, metric } = await startEndpoint(t);
  const bytes = randomBytes(32 * 1024 * 1024);
  const source = new Readable({ read: () => undefined, highWaterMark: 64 * 1024 * 1024 });
  const digest = content.addBlob(bytes, "peer", async () => source);
  const client = (await RawClient.open(port)).get(`/v2/a/blobs/${digest}?ns=ghcr.io`);
  for (let at = 0; at < bytes.byteLength / 2; at += 65_536) source.push(bytes.subarray(at, at + 65_536));
  await until("bytes wait in the socket", () => source.readableLength < bytes.byteLength / 2);
  source.destroy(lost());
  await until("the cut", async () => (await metric("p2p_mirror_http_cuts_total")) === 1);
  client.read();
  t.equal(await client.ended(), "end");
  const { body } = splitAnswer(client.received);
  t.ok(body.byteLength >= 65_536, `${body.byteLength} bytes came out of the buffers`);
  t.ok(body.equals(bytes.subarray(0, body.byteLength)), "what came is right");
});

/** A body of which `pushed` bytes were given when the source is lost; the client has read none of it. */
async function loseUnread(t: Test, pushed: number, beforeLoss: (client: RawClient, target: string) => void) {
  const running = await startEndpoint(t);
  const { content, port, metric } = running;
  const bytes = randomBytes(pushed + 1_000_000);
  const source = new Readable({ read: () => undefined, highWaterMark: bytes.byteLength });
  const digest = content.addBlob(bytes, "peer", async () => source);
  const target = `/v2/a/blobs/${digest}?ns=ghcr.io`;
  const client = (await RawClient.open(port)).get(target);
  for (let at = 0; at < pushed; at += 65_536) source.push(bytes.subarray(at, Math.min(pushed, at + 65_536)));
  await until("the body began", () => source.readableLength < pushed);
  beforeLoss(client, target);
  await until("the source gave what the client can take", async () => {
    const before = source.readableLength;
    await new Promise((resolve) => setTimeout(resolve, 20));
    return before === source.readableLength;
  });
  source.destroy(lost());
  await until("the cut", async () => (await metric("p2p_mirror_http_cuts_total")) === 1);
  return { ...running, client, bytes };
}

await t.test(
  "rule 0.2: input that lies unread in the server's kernel does not turn FIN into RST",
  async (t) => {
    const { client, bytes, content } = await loseUnread(t, 24 * 1024 * 1024, (client, target) => {
      // The answer is held back by the unread client, so that the server stops reading: these stay in its kernel.
      for (let count = 0; count < 24; count++) client.get(target, { "x-fill": "f".repeat(16_000) });
    });
    client.read();
    t.equal(await client.ended(), "end");
    const { body } = splitAnswer(client.received);
    t.ok(body.byteLength > 65_536, `${body.byteLength} bytes came`);
    t.ok(body.equals(bytes.subarray(0, body.byteLength)), "no second answer is mixed in");
    t.equal(content.asked.length, 1, "what was pipelined behind a cut is not served");
  },
);

for (const pushed of [128 * 1024, 24 * 1024 * 1024]) {
  await t.test(
    `rule 0.2: a client that talks on after the cut is not reset, ${pushed} bytes unread`,
    async (t) => {
      const { client, bytes } = await loseUnread(t, pushed, () => undefined);
      // Were the server's socket closed by now, this would be answered with RST, and what was not read yet be lost.
      for (let count = 0; count < 5; count++) {
        client.send(`GET /v2/ HTTP/1.1\r\nhost: m\r\n\r\n`);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      client.read();
      t.equal(await client.ended(), "end");
      const { body } = splitAnswer(client.received);
      t.ok(body.byteLength >= 65_536, `${body.byteLength} bytes came`);
      t.ok(body.equals(bytes.subarray(0, body.byteLength)), "what came is right");
    },
  );
}

await t.test(
  "garbage sent during an answer ends it with FIN, and no error page lands in the body",
  async (t) => {
    const { content, port } = await startEndpoint(t);
    const bytes = randomBytes(24 * 1024 * 1024);
    const digest = content.addBlob(bytes);
    const client = (await RawClient.open(port)).get(`/v2/a/blobs/${digest}?ns=ghcr.io`);
    await until("the body began", () => content.asked.length > 0);
    client.send(randomBytes(256 * 1024)).read();
    t.equal(await client.ended(), "end");
    const { body } = splitAnswer(client.received);
    t.ok(body.equals(bytes.subarray(0, body.byteLength)), `${body.byteLength} right bytes`);
  },
);

await t.test("rule 0.3: after a cut resumes of the digest get 404, those of others do not", async (t) => {
  const { content, url, port, metric } = await startEndpoint(t);
  const bytes = randomBytes(300_000);
  const digest = content.addBlob(bytes, "peer", losingAt(bytes, 128 * 1024));
  const other = content.addBlob(randomBytes(300_000));
  const cut = (await RawClient.open(port)).read().get(`/v2/a/blobs/${digest}?ns=ghcr.io`);
  await cut.ended();
  content.blobs.set(digest, { bytes, source: "peer", open: async (range) => chunked(bytes, range) });
  const resume = async (of: string): Promise<number> => {
    const { statusCode, body } = await request(`${url}/v2/a/blobs/${of}?ns=ghcr.io`, {
      headers: { range: "bytes=65536-" },
    });
    await body.dump();
    return statusCode;
  };
  t.equal(await resume(digest), 404);
  t.equal(content.asked.length, 1, "declined without asking anybody");
  t.equal(await resume(other), 206);
  t.equal(await metric("p2p_mirror_http_cut_resumes_declined_total"), 1);
});

await t.test("rule 0.3: a whole body that went through ends the memory of the cut", async (t) => {
  const { content, url, port } = await startEndpoint(t);
  const bytes = randomBytes(300_000);
  const digest = content.addBlob(bytes, "peer", losingAt(bytes, 128 * 1024));
  await (await RawClient.open(port)).read().get(`/v2/a/blobs/${digest}?ns=ghcr.io`).ended();
  content.blobs.set(digest, { bytes, source: "peer", open: async (range) => chunked(bytes, range) });
  const statusOf = async (headers: Record<string, string>): Promise<number> => {
    const { statusCode, body } = await request(`${url}/v2/a/blobs/${digest}?ns=ghcr.io`, { headers });
    await body.dump({ limit: 1e9 });
    return statusCode;
  };
  t.equal(await statusOf({ range: "bytes=1000-" }), 404);
  t.equal(await statusOf({}), 200);
  t.equal(await statusOf({ range: "bytes=1000-" }), 206);
});

await t.test(
  "rule 3.3: FIN without any byte would fail the pull, so a source lost before one is a 404",
  async (t) => {
    const { content, port, url, metric } = await startEndpoint(t);
    const bytes = randomBytes(300_000);
    const atOnce = content.addBlob(bytes, "peer", losingAt(bytes, 0));
    const failing = content.addBlob(randomBytes(10), "peer", async () => {
      throw lost();
    });
    const client = (await RawClient.open(port)).read();
    for (const digest of [atOnce, failing]) client.get(`/v2/a/blobs/${digest}?ns=ghcr.io`);
    await client.until((received) => received.toString().split("BLOB_UNKNOWN").length === 3);
    t.equal(client.received.toString().match(/HTTP\/1\.1 404/g)?.length, 2, "both on one connection");
    t.equal(client.ending, undefined, "which stays open");
    client.socket.destroy();
    t.equal(await metric("p2p_mirror_http_cuts_total"), 0);
    const { statusCode, body } = await request(`${url}/v2/a/blobs/${atOnce}?ns=ghcr.io`, {
      headers: { range: "bytes=5-" },
    });
    await body.dump();
    t.equal(statusCode, 404);
    t.equal(await metric("p2p_mirror_http_cut_resumes_declined_total"), 0, "a decline is no cut");
  },
);

await t.test("rule 0.4: a body never becomes longer or silently shorter than announced", async (t) => {
  const { content, port } = await startEndpoint(t);
  const bytes = randomBytes(150_000);
  const short = content.addBlob(bytes, "peer", async () => Readable.from([bytes.subarray(0, 100_000)]));
  const longer = content.addBlob(randomBytes(150_000), "peer", async () =>
    Readable.from([bytes.subarray(0, 100_000), bytes.subarray(0, 100_000)]),
  );
  for (const digest of [short, longer]) {
    const client = (await RawClient.open(port)).read().get(`/v2/a/blobs/${digest}?ns=ghcr.io`);
    t.equal(await client.ended(), "end");
    t.equal(splitAnswer(client.received).body.byteLength, 100_000, "up to the fault");
  }
});
