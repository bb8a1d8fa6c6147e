import { SourceError } from "@p2p-mirror/shared";
import t from "tap";
import { BusyError } from "../../src/transfer/peer-client.ts";
import { fakePeer, head } from "./fake-peer.ts";
import { until } from "../../../../test/rig/until.ts";
import { MemoryContent, metric, newBlob, newClient, read, startServer } from "./rig.ts";

const blob = newBlob(300_000);
const TRIPS = "p2p_mirror_peer_breaker_trips_total";

await t.test(
  "a peer gets a bounded number of connections; further requests wait for one and use it again",
  async (t) => {
    const held: (() => void)[] = [];
    const { peer, sockets } = await fakePeer(t, (socket) => {
      held.push(() => void socket.write(head("200 OK", "Content-Length: 2") + "ok"));
    });
    const { client } = await newClient(t, { connectionsPerPeer: 2 });
    const asked = Array.from({ length: 6 }, async () => {
      return (await read((await client.blob(peer, blob.digest, undefined)).body)).toString();
    });
    for (let i = 0; i < 6; i += 1) {
      await until(`request ${i} is there`, () => held.length > i);
      t.ok(held.length - i <= 2, "no more than two at once");
      held[i]?.();
    }
    t.same(await Promise.all(asked), ["ok", "ok", "ok", "ok", "ok", "ok"]);
    t.equal(sockets.length, 2);
  },
);

await t.test("who finds no free connection in time is told busy, and the peer is not blamed", async (t) => {
  const { peer } = await startServer(t, new MemoryContent(newBlob(1), blob));
  const { client, registry } = await newClient(t, {
    connectionsPerPeer: 1,
    // Also how long the second waits for a connection; the first must have its answer within it on a busy machine too.
    firstByteMs: 1500,
    dialTimeoutMs: 1000,
    highWaterMark: 1,
  });
  const first = await client.blob(peer, blob.digest, undefined);
  const error: unknown = await client.blob(peer, blob.digest, undefined).catch((cause: unknown) => cause);
  t.ok(error instanceof BusyError, String(error));
  t.equal(await metric(registry, TRIPS), 0);
  t.ok((await read(first.body)).equals(blob.bytes), "the one that has the connection goes on");
  const third = await client.blob(peer, blob.digest, undefined);
  t.ok((await read(third.body)).equals(blob.bytes));
});

await t.test("an unused connection is closed after the idle time", async (t) => {
  const { peer, sockets } = await fakePeer(
    t,
    (socket) => void socket.write(head("200 OK", "Content-Length: 0")),
  );
  const { client } = await newClient(t, { idleMs: 50 });
  await read((await client.blob(peer, blob.digest, undefined)).body);
  t.equal(sockets[0]?.destroyed, false);
  await until("it is closed", () => sockets[0]?.destroyed === true);
});

await t.test("the peer used least recently loses its pool, but never a body that is under way", async (t) => {
  const servers = await Promise.all([0, 1, 2].map(() => startServer(t, new MemoryContent(blob))));
  const { client } = await newClient(t, { maxPeers: 2, highWaterMark: 1 });
  const bodies = [];
  for (const { peer } of servers) bodies.push((await client.blob(peer, blob.digest, undefined)).body);
  for (const body of bodies) t.ok((await read(body)).equals(blob.bytes));
});

await t.test(
  "after a peer was silent its kept connections are not trusted: the next try dials",
  async (t) => {
    let silent = false;
    const { peer, sockets } = await fakePeer(t, (socket) => {
      if (!silent) socket.write(head("200 OK", "Content-Length: 2") + "ok");
    });
    let now = 0;
    const { client, registry } = await newClient(t, { firstByteMs: 500 }, { now: () => now });
    const fetch = async () => read((await client.blob(peer, blob.digest, undefined)).body);
    await Promise.all([fetch(), fetch(), fetch()]);
    t.equal(sockets.length, 3);
    silent = true;
    await t.rejects(fetch(), { code: "NO_FIRST_BYTE" });
    await t.rejects(fetch(), { code: "NO_FIRST_BYTE" });
    t.equal(await metric(registry, TRIPS), 1);
    await until("all old connections are closed", () => sockets.every((socket) => socket.destroyed));
    silent = false;
    now = 5001;
    await fetch();
    t.equal(sockets.length, 4);
  },
);

await t.test("a closed client refuses, and ends what is under way", async (t) => {
  const { peer } = await fakePeer(t, (socket) => void socket.write(head("200 OK", "Content-Length: 100")));
  const { client, close } = await newClient(t);
  const { body } = await client.blob(peer, blob.digest, undefined);
  await close();
  await t.rejects(read(body), { code: "CUT" });
  const error: unknown = await client.blob(peer, blob.digest, undefined).catch((cause: unknown) => cause);
  t.ok(error instanceof SourceError && error.code === "UNREACHABLE", String(error));
});
