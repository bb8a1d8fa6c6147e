import { randomBytes } from "node:crypto";
import { connect } from "node:net";
import { once } from "node:events";
import t from "tap";
import { until } from "../../../../test/rig/until.ts";
import { startEndpoint } from "./support/endpoint.ts";
import { RawClient, splitAnswer } from "./support/raw-client.ts";
import { chunked, imageManifest } from "./support/scripted-content.ts";

const never = (): Promise<void> => new Promise(() => undefined);

await t.test("close: idle connections end at once, and no new one is accepted", async (t) => {
  const { content, port, close } = await startEndpoint(t, { drainMs: 30_000 });
  content.addManifest(imageManifest(), "v1");
  const fresh = (await RawClient.open(port)).read();
  const used = (await RawClient.open(port)).read().get("/v2/a/manifests/v1?ns=a.b");
  await used.until((received) => received.includes("annotations"));
  const from = performance.now();
  const closed = close();
  t.equal(await fresh.ended(), "end");
  t.equal(await used.ended(), "end");
  await closed;
  t.ok(performance.now() - from < 1_000, "nothing to wait for");
  const late = connect({ port, host: "127.0.0.1" });
  const [error] = await once(late, "error");
  t.match(error, { code: "ECONNREFUSED" });
});

await t.test("close: a reader that can finish in time does, and its connection ends after it", async (t) => {
  const { content, port, close, metric } = await startEndpoint(t, { drainMs: 30_000 });
  const bytes = randomBytes(20 * 65_536);
  const { promise: go, resolve } = Promise.withResolvers<void>();
  const digest = content.addBlob(bytes, "peer", async (range) =>
    chunked(bytes, range, (at) => (at === 0 ? undefined : go)),
  );
  const client = (await RawClient.open(port)).read().get(`/v2/a/blobs/${digest}?ns=a.b`);
  await client.untilBytes(65_536);
  const closed = close();
  await until("it does not accept any more", async () => {
    const probe = connect({ port, host: "127.0.0.1" });
    const refused = await Promise.race([once(probe, "error"), once(probe, "connect").then(() => undefined)]);
    probe.destroy();
    return refused !== undefined;
  });
  resolve();
  t.equal(await client.ended(), "end");
  t.ok(splitAnswer(client.received).body.equals(bytes), "whole");
  await closed;
  t.equal(await metric("p2p_mirror_http_cuts_total"), 0);
});

await t.test(
  "close: after the drain time readers are cut with FIN and waiting requests declined",
  async (t) => {
    const { content, port, close, metric, log } = await startEndpoint(t, { drainMs: 50 });
    const bytes = randomBytes(20 * 65_536);
    const digest = content.addBlob(bytes, "peer", async (range) =>
      chunked(bytes, range, (at) => (at < 65_536 ? undefined : never())),
    );
    const reader = (await RawClient.open(port)).read().get(`/v2/a/blobs/${digest}?ns=a.b`);
    await reader.untilBytes(65_536);
    content.before = never;
    const waiting = (await RawClient.open(port)).read().get("/v2/a/manifests/v1?ns=a.b");
    await until("it waits", () => content.asked.length === 2);
    const from = performance.now();
    const closed = close();
    t.equal(await reader.ended(), "end");
    t.equal(splitAnswer(reader.received).body.byteLength, 65_536);
    t.equal(await waiting.ended(), "end");
    t.match(waiting.received.toString(), /^HTTP\/1\.1 404 [^]*connection: close[^]*MANIFEST_UNKNOWN/i);
    await closed;
    t.ok(performance.now() - from < 2_000, `closed in ${performance.now() - from} ms`);
    t.equal(await metric("p2p_mirror_http_cuts_total", { reason: "drain" }), 1);
    t.equal(await metric("p2p_mirror_http_requests_in_flight"), 0);
    t.equal(log.at(50).length, 0);
  },
);

await t.test("close: a reader that takes nothing cannot hold it up", async (t) => {
  const { content, port, close } = await startEndpoint(t, { drainMs: 50 });
  const digest = content.addBlob(randomBytes(32 * 1024 * 1024));
  const client = (await RawClient.open(port)).get(`/v2/a/blobs/${digest}?ns=a.b`);
  await until("the body began", () => content.asked.length === 1);
  const from = performance.now();
  await close();
  t.ok(performance.now() - from < 3_000, `closed in ${performance.now() - from} ms`);
  client.read();
  t.equal(await client.ended(), "end", "even then it is FIN");
});

await t.test("close without start, and a start that is aborted, leave nothing open", async (t) => {
  const { endpoint, close } = await startEndpoint(t);
  await close();
  t.throws(() => endpoint.address);
  await t.rejects(endpoint.start(AbortSignal.abort(new Error("no"))), { message: "no" });
});

await t.test("rule 3.1: connections are kept longer than containerd's 30 s", async (t) => {
  const { content, port } = await startEndpoint(t);
  content.addManifest(imageManifest(), "v1");
  const client = (await RawClient.open(port)).read();
  for (let count = 1; count <= 3; count++) {
    client.get("/v2/a/manifests/v1?ns=a.b");
    await client.until((received) => received.toString().split("annotations").length === count + 1);
  }
  t.match(client.received.toString(), /keep-alive: timeout=90/i);
  client.socket.destroy();
});
