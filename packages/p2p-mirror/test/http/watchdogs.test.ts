import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import t from "tap";
import { request } from "undici";
import { until } from "../../../../test/rig/until.ts";
import { startEndpoint } from "./support/endpoint.ts";
import { RawClient, splitAnswer } from "./support/raw-client.ts";
import { chunked } from "./support/scripted-content.ts";

const never = <T>(): Promise<T> => new Promise<T>(() => undefined);

await t.test(
  "rule 0.1: content that never answers is a 404 after the deadline, on every kind of request",
  async (t) => {
    const { content, url, metric } = await startEndpoint(t, { firstByteMs: 60 });
    const aborted: unknown[] = [];
    content.before = ({ signal }) => {
      signal.addEventListener("abort", () => aborted.push(signal.reason));
      return never();
    };
    const digest = `sha256:${"a".repeat(64)}`;
    const paths = [
      "manifests/v1",
      `manifests/${digest}`,
      `blobs/${digest}`,
      "tags/list",
      `referrers/${digest}`,
    ];
    for (const path of paths) {
      const { statusCode, body } = await request(`${url}/v2/a/${path}?ns=ghcr.io`);
      t.equal(statusCode, 404, path);
      t.match(await body.json(), { errors: [{ code: /_UNKNOWN$/ }] }, path);
    }
    t.equal(aborted.length, paths.length, "the work behind is told");
    t.match(aborted[0], { code: "NO_FIRST_BYTE" });
    t.equal(await metric("p2p_mirror_http_requests_in_flight"), 0);
  },
);

await t.test("rule 0.1: so is access that never decides", async (t) => {
  const { access, url } = await startEndpoint(t, { firstByteMs: 60 });
  access.answer = never;
  const { statusCode, body } = await request(`${url}/v2/a/manifests/v1?ns=ghcr.io`);
  await body.dump();
  t.equal(statusCode, 404);
});

await t.test(
  "rule 0.1: a body that is never opened, or opened without a byte, is a 404 as well",
  async (t) => {
    const { content, url } = await startEndpoint(t, { firstByteMs: 60 });
    const late = Promise.withResolvers<Readable>();
    const unopened = content.addBlob(randomBytes(10), "peer", () => late.promise);
    const silent = new Readable({ read: () => undefined });
    const mute = content.addBlob(randomBytes(10), "peer", async () => silent);
    for (const digest of [unopened, mute]) {
      const { statusCode, body } = await request(`${url}/v2/a/blobs/${digest}?ns=ghcr.io`);
      await body.dump();
      t.equal(statusCode, 404);
    }
    t.ok(silent.destroyed);
    const stream = new Readable({ read: () => undefined });
    late.resolve(stream);
    await until("a body that comes too late is destroyed", () => stream.destroyed);
  },
);

await t.test(
  "a blob that is on its way is answered with headers in time, and its bytes when they are here",
  async (t) => {
    const { content, port, metric } = await startEndpoint(t, { headersMs: 60 });
    const bytes = randomBytes(100_000);
    const here = Promise.withResolvers<void>();
    const digest = content.addBlob(bytes, "peer", async (range) => chunked(bytes, range, () => here.promise));
    const client = (await RawClient.open(port)).read().get(`/v2/a/blobs/${digest}?ns=ghcr.io`);
    await until("the headers are here", () => client.received.includes("\r\n\r\n"));
    t.match(splitAnswer(client.received).head, /^HTTP\/1.1 200 /);
    t.equal(splitAnswer(client.received).body.byteLength, 0);
    t.equal(await metric("p2p_mirror_http_first_byte_seconds"), 0, "headers are no byte");
    here.resolve();
    t.ok((await client.untilBody(bytes.byteLength)).equals(bytes));
    t.ok((await metric("p2p_mirror_http_first_byte_seconds", { kind: "blob" })) > 0);
    client.socket.destroy();
  },
);

await t.test(
  "a source that is lost between headers and the first byte ends in FIN, and sends the client elsewhere when it asks again",
  async (t) => {
    const { content, port, metric, url } = await startEndpoint(t, { headersMs: 60 });
    const bytes = randomBytes(100_000);
    const lost = Promise.withResolvers<void>();
    const digest = content.addBlob(bytes, "peer", async (range) => chunked(bytes, range, () => lost.promise));
    const client = (await RawClient.open(port)).read().get(`/v2/a/blobs/${digest}?ns=ghcr.io`);
    await until("the headers are here", () => client.received.includes("\r\n\r\n"));
    lost.reject(new Error("the only source is gone"));
    t.equal(await client.ended(), "end");
    t.equal(splitAnswer(client.received).body.byteLength, 0);
    t.equal(await metric("p2p_mirror_http_cuts_total", { reason: "source" }), 1);
    // Four times FIN without a byte, and containerd fails the pull.
    for (const headers of [{}, { range: "bytes=0-" }]) {
      const { statusCode, body } = await request(`${url}/v2/a/blobs/${digest}?ns=ghcr.io`, { headers });
      await body.dump();
      t.equal(statusCode, 404);
    }
  },
);

await t.test("rule 0.1: a source that stops mid-body is cut with FIN by the watchdog", async (t) => {
  const { content, port, metric } = await startEndpoint(t, { stallMs: 60 });
  const bytes = randomBytes(300_000);
  const digest = content.addBlob(bytes, "peer", async (range) =>
    chunked(bytes, range, (at) => (at < 65_536 ? undefined : never<void>())),
  );
  const client = (await RawClient.open(port)).read().get(`/v2/a/blobs/${digest}?ns=ghcr.io`);
  t.equal(await client.ended(), "end");
  t.equal(splitAnswer(client.received).body.byteLength, 65_536);
  t.equal(await metric("p2p_mirror_http_cuts_total", { reason: "stall" }), 1);
});

await t.test(
  "a slow client does not trip the watchdog, and a slow source that moves does not either",
  async (t) => {
    const { content, port, url, metric } = await startEndpoint(t, { stallMs: 250 });
    const bytes = randomBytes(32 * 1024 * 1024);
    const digest = content.addBlob(bytes);
    const client = (await RawClient.open(port)).get(`/v2/a/blobs/${digest}?ns=ghcr.io`);
    const asked = performance.now();
    await until("many times the stall time has passed unread", () => performance.now() - asked > 1000);
    client.read();
    t.ok((await client.untilBody(bytes.byteLength)).equals(bytes));
    client.socket.destroy();

    const slow = content.addBlob(bytes.subarray(0, 65_536 * 8), "upstream", async (range) =>
      chunked(bytes, range, () => new Promise((resolve) => setTimeout(resolve, 50))),
    );
    const { body } = await request(`${url}/v2/a/blobs/${slow}?ns=ghcr.io`);
    t.equal((await body.arrayBuffer()).byteLength, 65_536 * 8);
    t.equal(await metric("p2p_mirror_http_cuts_total"), 0);
  },
);

await t.test(
  "rule 3.5: a client that leaves is normal: its source is closed, nobody is blamed, nothing is remembered",
  async (t) => {
    const { content, port, url, metric, log } = await startEndpoint(t);
    const bytes = randomBytes(32 * 1024 * 1024);
    let source: Readable | undefined;
    const digest = content.addBlob(bytes, "upstream", async (range) => (source = chunked(bytes, range)));
    // As containerd 2.1 in chunked mode: an open-ended range, dropped after one chunk.
    const client = (await RawClient.open(port)).read();
    client.get(`/v2/a/blobs/${digest}?ns=ghcr.io`, { range: "bytes=8388608-" });
    await client.untilBytes(1024 * 1024);
    client.socket.resetAndDestroy();
    await until("the source is closed", () => source?.destroyed === true);
    await until("it is counted", async () => (await metric("p2p_mirror_http_client_aborts_total")) === 1);
    t.equal(await metric("p2p_mirror_http_cuts_total"), 0);
    t.same([...log.at(40), ...log.at(50)], [], "no warning, no error");
    const again = await request(`${url}/v2/a/blobs/${digest}?ns=ghcr.io`, {
      headers: { range: "bytes=33000000-" },
    });
    await again.body.dump({ limit: 1e9 });
    t.equal(again.statusCode, 206, "a resume is served");
  },
);

await t.test("a client that leaves while content still looks aborts that search", async (t) => {
  const { content, port, metric } = await startEndpoint(t);
  let aborted = false;
  content.before = ({ signal }) => {
    signal.addEventListener("abort", () => (aborted = true));
    return never();
  };
  const client = (await RawClient.open(port)).get(`/v2/a/blobs/sha256:${"a".repeat(64)}?ns=ghcr.io`);
  await until("content is asked", () => content.asked.length === 1);
  client.socket.destroy();
  await until("the search is aborted", () => aborted);
  await until("nothing is in flight", async () => (await metric("p2p_mirror_http_requests_in_flight")) === 0);
});

await t.test("rule 3.1: a client that closes at the last byte was served", async (t) => {
  const { content, port, metric, log } = await startEndpoint(t);
  const bytes = randomBytes(300_000);
  // A source that has given everything and takes its time to end.
  const source = new Readable({ read: () => undefined });
  const digest = content.addBlob(bytes, "peer", async () => {
    source.push(bytes);
    return source;
  });
  const client = (await RawClient.open(port)).read().get(`/v2/a/blobs/${digest}?ns=ghcr.io`);
  await client.untilBody(bytes.byteLength);
  client.socket.destroy();
  await until("it is logged as served", () => log.at(30).length === 1);
  await until("its source is not left open", () => source.destroyed);
  t.match(log.at(30)[0], { digest, size: 300_000, source: "peer", ms: Number });
  t.equal(await metric("p2p_mirror_http_client_aborts_total"), 0);
  t.equal(await metric("p2p_mirror_http_sent_bytes_total", { source: "peer" }), 300_000);
});
