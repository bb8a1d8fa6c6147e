import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { connect as tlsConnect } from "node:tls";
import { SourceError } from "@p2p-mirror/shared";
import t from "tap";
import { deafListener } from "../../../../test/rig/deaf-listener.ts";
import { clusterSecrets } from "../../src/trust/cluster-secret.ts";
import { fakePeer, head, mutePeer } from "./fake-peer.ts";
import { until } from "../../../../test/rig/until.ts";
import { MemoryContent, metric, newBlob, newClient, newNode, startServer } from "./rig.ts";

const blob = newBlob(1000);
const failures = "p2p_mirror_peer_dial_failures_total";

await t.test("a port that nobody listens on is UNREACHABLE at once", async (t) => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("no port");
  const { identity } = await newNode();
  const { client, registry } = await newClient(t);
  const started = Date.now();
  const peer = { id: identity.id, host: "127.0.0.1", port: address.port };
  await t.rejects(client.blob(peer, blob.digest, undefined), { code: "UNREACHABLE" });
  t.ok(Date.now() - started < 500, `it took ${Date.now() - started} ms`);
  t.equal(await metric(registry, failures, { reason: "refused" }), 1);
  t.equal(await metric(registry, "p2p_mirror_peer_breaker_trips_total"), 1);
});

await t.test(
  "a process that accepts and never answers the handshake is UNREACHABLE within the dial timeout",
  async (t) => {
    const { peer, sockets } = await mutePeer(t);
    const { client, registry } = await newClient(t, { dialTimeoutMs: 200 });
    const started = Date.now();
    await t.rejects(client.blob(peer, blob.digest, undefined), { code: "UNREACHABLE" });
    const took = Date.now() - started;
    t.ok(took >= 190 && took < 1500, `it took ${took} ms`);
    t.equal(sockets.length, 1);
    t.equal(await metric(registry, failures, { reason: "timeout" }), 1);
  },
);

await t.test("a host that drops our SYNs is UNREACHABLE within the dial timeout", async (t) => {
  const deaf = await deafListener();
  t.teardown(() => deaf[Symbol.asyncDispose]());
  const { identity } = await newNode();
  const { client, registry } = await newClient(t, { dialTimeoutMs: 300 });
  const peer = { id: identity.id, host: "127.0.0.1", port: deaf.port };
  const started = Date.now();
  await t.rejects(client.blob(peer, blob.digest, undefined), { code: "UNREACHABLE" });
  t.ok(Date.now() - started < 1500, `it took ${Date.now() - started} ms`);
  t.ok(deaf.full, "SYNs are really dropped");
  t.equal(await metric(registry, failures, { reason: "timeout" }), 1);
});

await t.test("another node at a peer's address gets no request, and is counted", async (t) => {
  const real = await fakePeer(t, (socket) => void socket.write(head("200 OK", "Content-Length: 0")));
  const { identity } = await newNode();
  const { client, registry } = await newClient(t);
  const error: unknown = await client
    .blob({ ...real.peer, id: identity.id }, blob.digest, undefined)
    .catch((cause: unknown) => cause);
  t.ok(error instanceof SourceError && error.code === "UNREACHABLE", String(error));
  t.ok(error instanceof Error && error.cause !== undefined, "the reason is its cause");
  t.equal(real.requests.length, 0);
  t.equal(await metric(registry, failures, { reason: "wrong-identity" }), 1);
  const { body } = await client.blob(real.peer, blob.digest, undefined);
  body.destroy();
  t.equal(real.requests.length, 1, "the node itself is not blamed");
});

await t.test("a node of another cluster gets nowhere, in either direction", async (t) => {
  const { peer, registry: serverRegistry } = await startServer(t, new MemoryContent(blob));
  const stranger = await newClient(t, {}, { secrets: clusterSecrets([randomBytes(32)]) });
  await t.rejects(stranger.client.blob(peer, blob.digest, undefined), { code: "UNREACHABLE" });
  t.equal(await metric(stranger.registry, failures, { reason: "tls" }), 1);
  await until("the server has counted it", async () => {
    return (await metric(serverRegistry, "p2p_mirror_peer_rejected_sockets_total")) === 1;
  });
});

await t.test("without a certificate nobody is answered", async (t) => {
  const { peer, registry } = await startServer(t, new MemoryContent(blob));
  const socket = tlsConnect({ host: peer.host, port: peer.port, rejectUnauthorized: false });
  let got = "";
  socket.on("error", () => undefined).on("data", (chunk: Buffer) => (got += chunk.toString()));
  socket.write(`GET /p2p/v1/blobs/${blob.digest} HTTP/1.1\r\nHost: x\r\n\r\n`);
  await new Promise((resolve) => void socket.on("close", resolve));
  t.equal(got, "");
  t.equal(await metric(registry, "p2p_mirror_peer_rejected_sockets_total"), 1);
  t.equal(await metric(registry, "p2p_mirror_peer_served_total"), 0);
});

await t.test("plain HTTP to the port is cut, and counted", async (t) => {
  const { peer, registry } = await startServer(t, new MemoryContent(blob));
  const socket = connect(peer.port, peer.host);
  socket.on("error", () => undefined).resume();
  socket.write(`GET /p2p/v1/blobs/${blob.digest} HTTP/1.1\r\nHost: x\r\n\r\n`);
  await new Promise((resolve) => void socket.on("close", resolve));
  t.equal(await metric(registry, "p2p_mirror_peer_rejected_sockets_total"), 1);
});
