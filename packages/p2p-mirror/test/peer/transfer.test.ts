import { digestOf, InvalidInputError, NotFoundError } from "@p2p-mirror/shared";
import t from "tap";
import { BusyError } from "../../src/transfer/peer-client.ts";
import { until } from "../../../../test/rig/until.ts";
import { MemoryContent, metric, newBlob, newClient, read, startServer } from "./rig.ts";

const blob = newBlob(3_000_001);
const absent = digestOf(Buffer.from("held by nobody"));

await t.test("a whole blob arrives byte for byte, with its size and the peer's load", async (t) => {
  const { peer, registry } = await startServer(t, new MemoryContent(blob), { uploadSlots: 4 });
  const { client, registry: clientRegistry } = await newClient(t);
  const answer = await client.blob(peer, blob.digest, undefined);
  t.equal(answer.size, blob.bytes.byteLength);
  t.equal(answer.load, 0, "the load is that of the moment before this request");
  t.ok((await read(answer.body)).equals(blob.bytes));
  t.equal(await client.stat(peer, blob.digest), blob.bytes.byteLength);
  t.equal(await metric(registry, "p2p_mirror_peer_sent_bytes_total"), blob.bytes.byteLength);
  t.equal(await metric(clientRegistry, "p2p_mirror_peer_received_bytes_total"), blob.bytes.byteLength);
  t.equal(
    await metric(clientRegistry, "p2p_mirror_peer_fetched_total", { kind: "blob", outcome: "complete" }),
    1,
  );
  t.equal(
    await metric(clientRegistry, "p2p_mirror_peer_fetched_total", { kind: "stat", outcome: "complete" }),
    1,
  );
});

await t.test("ranges are exact at every edge", async (t) => {
  const { peer } = await startServer(t, new MemoryContent(blob));
  const { client } = await newClient(t);
  const size = blob.bytes.byteLength;
  for (const [start, end] of [
    [0, 1],
    [0, size],
    [size - 1, size],
    [65_535, 65_537],
    [1_000_000, 2_500_000],
  ] as const) {
    const answer = await client.blob(peer, blob.digest, { start, end });
    t.equal(answer.size, size, `${start}-${end} names the size of the whole`);
    t.ok((await read(answer.body)).equals(blob.bytes.subarray(start, end)), `${start}-${end} is exact`);
  }
});

await t.test("a range beyond the end is an error, not a shorter body", async (t) => {
  const { peer } = await startServer(t, new MemoryContent(blob));
  const { client } = await newClient(t);
  const size = blob.bytes.byteLength;
  await t.rejects(client.blob(peer, blob.digest, { start: size - 10, end: size + 1 }), { code: "STATUS" });
  await t.rejects(client.blob(peer, blob.digest, { start: size, end: size + 1 }), {
    code: "STATUS",
    status: 416,
  });
  await t.rejects(client.blob(peer, blob.digest, { start: 5, end: 5 }), InvalidInputError);
});

await t.test("an empty blob is 200 with no bytes", async (t) => {
  const empty = newBlob(0);
  const { peer } = await startServer(t, new MemoryContent(empty));
  const { client } = await newClient(t);
  const answer = await client.blob(peer, empty.digest, undefined);
  t.equal(answer.size, 0);
  t.equal((await read(answer.body)).byteLength, 0);
});

await t.test("what is not held is NotFoundError, for GET and HEAD, and no fault", async (t) => {
  const { peer } = await startServer(t, new MemoryContent(blob));
  const { client, registry } = await newClient(t);
  for (let i = 0; i < 5; i += 1) {
    await t.rejects(client.blob(peer, absent, undefined), NotFoundError);
    await t.rejects(client.stat(peer, absent), NotFoundError);
  }
  t.equal(await metric(registry, "p2p_mirror_peer_breaker_trips_total"), 0);
  t.equal(await metric(registry, "p2p_mirror_peer_fetched_total", { outcome: "not-found" }), 10);
});

await t.test("records are handed over as text; keys of any characters survive the way", async (t) => {
  const local = new MemoryContent();
  const key = "tag:example.org:5000/a/b:v1 ünï&=+%/?#";
  local.records.set(key, '{"records":[]}');
  const { peer } = await startServer(t, local);
  const { client } = await newClient(t);
  t.equal(await client.record(peer, key), '{"records":[]}');
  await t.rejects(client.record(peer, "tag:other"), NotFoundError);
});

await t.test("with all slots taken the next is told who else has it; small blobs still come", async (t) => {
  // What peers fetch in one request (transfer/small-objects.ts) is never refused.
  const small = newBlob(1024 * 1024);
  const other = { id: "12D3KooWother0000000000000000000000", host: "10.1.2.3", port: 24_221 };
  const { peer, registry } = await startServer(
    t,
    new MemoryContent(blob, small),
    { uploadSlots: 2 },
    { others: () => [other] },
  );
  const { client, registry: clientRegistry } = await newClient(t, { highWaterMark: 1 });
  const held = [
    await client.blob(peer, blob.digest, undefined),
    await client.blob(peer, blob.digest, undefined),
  ];
  const error: unknown = await client.blob(peer, blob.digest, undefined).catch((cause: unknown) => cause);
  t.ok(error instanceof BusyError);
  t.match(error, { code: "BUSY", tryInstead: [other] });
  t.ok((await read((await client.blob(peer, small.digest, undefined)).body)).equals(small.bytes));
  t.equal(await metric(clientRegistry, "p2p_mirror_peer_breaker_trips_total"), 0);
  t.equal(await metric(registry, "p2p_mirror_peer_upload_slots", { state: "busy" }), 2);
  for (const { body } of held) body.destroy();
  await until("both slots are free again", async () => {
    return (await metric(registry, "p2p_mirror_peer_upload_slots", { state: "busy" })) === 0;
  });
  const again = await client.blob(peer, blob.digest, undefined);
  t.ok((await read(again.body)).equals(blob.bytes));
});
