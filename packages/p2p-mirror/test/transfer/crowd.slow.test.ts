import { buffer } from "node:stream/consumers";
import { digestOf, NotFoundError } from "@p2p-mirror/shared";
import t, { type Test } from "tap";
import { until } from "../../../../test/rig/until.ts";
import { DegradingSpool } from "../../src/transfer/degrading-spool.ts";
import type { Flight } from "../../src/transfer/flight.ts";
import { PieceGeometry } from "../../src/transfer/pieces.ts";
import { MemorySpool, WholeSpool } from "../../src/transfer/spool.ts";
import type { BlobSource } from "../../src/transfer/source.ts";
import { Crowd } from "./crowd.ts";
import { fileSpool, fullAfter, MIB, turn, whole } from "./flying.ts";
import { ScriptedSource, seededBytes } from "./scripted-source.ts";

const SEED = Number(process.env["TEST_SEED"] ?? Date.now() % 1e9);
t.comment(`seed ${SEED} (TEST_SEED)`);
const never = new AbortController().signal;

/** All are read whole, side by side, and give the right bytes. */
async function allGet(t: Test, flights: readonly Flight[], bytes: Buffer): Promise<void> {
  const bodies = await Promise.all(flights.map((flight) => buffer(flight.open(whole(bytes), never))));
  for (const body of bodies) t.ok(body.equals(bytes));
}

await t.test("a lone node gets everything in one request, at once", async (t) => {
  const bytes = seededBytes(6 * MIB + 5, SEED);
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream" });
  const crowd = await Crowd.of(t, bytes, { nodes: 1, seed: SEED, upstream: () => upstream });
  const flight = await crowd.start(0);
  t.ok((await buffer(flight.open(whole(bytes), never))).equals(bytes));
  t.strictSame(upstream.requests, [whole(bytes)]);
  await flight.done;
});

await t.test(
  "nodes that start together fetch each byte from upstream once, and give it to each other",
  async (t) => {
    const bytes = seededBytes(16 * MIB + 77, SEED + 1);
    const upstream = new ScriptedSource("up", { bytes, kind: "upstream", pace: turn });
    const crowd = await Crowd.of(t, bytes, { nodes: 5, seed: SEED, upstream: () => upstream });
    const flights = await Promise.all(crowd.nodes.map((_, nth) => crowd.start(nth)));
    await allGet(t, flights, bytes);
    const share = upstream.delivered / bytes.length;
    t.ok(share < 1.2, `upstream sent ${share.toFixed(3)} of the blob`);
    t.ok(crowd.nodes.filter(({ given }) => given > 0).length >= 3, "most gave something");
  },
);

await t.test(
  "who was given everything at first takes the pieces that others bring instead of it",
  async (t) => {
    const bytes = seededBytes(8 * MIB, SEED + 7);
    const opened = Promise.withResolvers<void>();
    const slow = new ScriptedSource("slow", { bytes, kind: "upstream", pace: () => opened.promise });
    const fast = new ScriptedSource("fast", { bytes, kind: "upstream", pace: turn });
    const crowd = await Crowd.of(t, bytes, {
      nodes: 3,
      seed: SEED,
      upstream: (nth) => (nth === 0 ? slow : fast),
    });
    const first = await crowd.start(0);
    await until("the first node has a lease on the whole blob", () => {
      const [lease] = first.progress.swarm?.leases ?? [];
      return lease?.start === 0 && lease.end === bytes.length && slow.requests.length === 1;
    });
    const flights = [first, await crowd.start(1), await crowd.start(2)];
    const bodies = flights.map((flight) => buffer(flight.open(whole(bytes), never)));
    await until("it has pieces of the others", () => first.progress.fromPeers > 0, { timeoutMs: 1_900 });
    t.ok(
      first.progress.swarm?.leases.some(({ start }) => start === 0),
      "while its first request is under way",
    );
    opened.resolve();
    for (const body of await Promise.all(bodies)) t.ok(body.equals(bytes));
  },
);

await t.test("what a node has brought while it was alone is hashed when another one wants it", async (t) => {
  const bytes = seededBytes(12 * MIB + 3, SEED + 11);
  const joined = Promise.withResolvers<void>();
  const upstream = new ScriptedSource("up", {
    bytes,
    kind: "upstream",
    pace: (sent) => (sent < bytes.length / 2 ? turn() : joined.promise.then(turn)),
  });
  const crowd = await Crowd.of(t, bytes, { nodes: 2, seed: SEED, upstream: () => upstream });
  const first = await crowd.start(0);
  const body = buffer(first.open(whole(bytes), never));
  await until("half of it is here", () => first.progress.received >= bytes.length / 2 - MIB);
  const geometry = new PieceGeometry(bytes.length);
  const about = { digest: digestOf(bytes), size: bytes.length, geometry };
  const known = crowd.nodes[0]?.swarm.hashes(about);
  t.equal(known?.of(0), undefined, "nobody has needed it");
  t.ok(first.piece(0), "but it can be had");
  const second = await crowd.start(1);
  const other = buffer(second.open(whole(bytes), never));
  await until("the other has some of that", () => second.progress.fromPeers >= MIB);
  const signers = Array.from({ length: geometry.count }, (_, piece) => known?.of(piece)?.signer);
  t.ok(signers.includes("node0"));
  joined.resolve();
  for (const one of await Promise.all([body, other])) t.ok(one.equals(bytes));
});

await t.test("a piece that is changed on its way is fetched again; the pull succeeds", async (t) => {
  const bytes = seededBytes(12 * MIB, SEED + 2);
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream", pace: turn });
  let changed = 0;
  const crowd = await Crowd.of(t, bytes, {
    nodes: 3,
    seed: SEED,
    upstream: () => upstream,
    onTheWay: (_from, _to, _piece, piece) => {
      if (changed >= 3) return piece;
      changed += 1;
      const wrong = Buffer.from(piece);
      wrong[17] = (wrong[17] ?? 0) ^ 1;
      return wrong;
    },
  });
  const flights = await Promise.all(crowd.nodes.map((_, nth) => crowd.start(nth)));
  await allGet(t, flights, bytes);
  t.equal(changed, 3);
});

await t.test(
  "a neighbour that changes every piece is left alone; upstream brings what only it has",
  async (t) => {
    const bytes = seededBytes(8 * MIB, SEED + 5);
    const upstream = new ScriptedSource("up", { bytes, kind: "upstream", pace: turn });
    const crowd = await Crowd.of(t, bytes, {
      nodes: 3,
      seed: SEED,
      upstream: () => upstream,
      onTheWay: (from, _to, _piece, piece) => (from === "node0" ? Buffer.alloc(piece.length) : piece),
    });
    const flights = await Promise.all(crowd.nodes.map((_, nth) => crowd.start(nth)));
    await allGet(t, flights, bytes);
    const share = upstream.delivered / bytes.length;
    t.ok(share < 2, `upstream sent ${share.toFixed(3)} of the blob`);
  },
);

await t.test(
  "after a wrong blob it is found out who lied, and only what that one signed is fetched again",
  async (t) => {
    const bytes = seededBytes(12 * MIB, SEED + 9);
    const wrong = Buffer.from(bytes);
    for (let at = 1_000; at < wrong.length; at += 128 * 1024) wrong.writeUInt8(wrong.readUInt8(at) ^ 1, at);
    const upstream = new ScriptedSource("up", { bytes, kind: "upstream", pace: turn });
    const lying = new ScriptedSource("lying", { bytes: wrong, kind: "upstream", pace: turn });
    const crowd = await Crowd.of(t, bytes, {
      nodes: 5,
      seed: SEED,
      upstream: (nth) => (nth === 4 ? lying : upstream),
    });
    // It is there first, so that some of the blob is its.
    const liar = await crowd.start(4);
    const body = buffer(liar.open(whole(bytes), never));
    await until("it has pieces", () => liar.progress.received > MIB);
    const honest = await Promise.all([0, 1, 2, 3].map((nth) => crowd.start(nth)));
    const bodiesOf = honest.map((flight) => buffer(flight.open(whole(bytes), never)));
    const ended = await Promise.allSettled([body, ...bodiesOf]);
    t.ok(
      ended.every(({ status }) => status === "rejected"),
      "nobody's pull succeeds",
    );
    await Promise.all([liar, ...honest].map(({ closed }) => closed));
    t.ok(lying.delivered > 0);
    const before = upstream.delivered;
    const next = await Promise.all([0, 1, 2, 3].map((nth) => crowd.start(nth)));
    await allGet(t, next, bytes);
    await Promise.all(next.map(({ done }) => done));
    const share = (upstream.delivered - before) / bytes.length;
    t.comment(`${(lying.delivered / bytes.length).toFixed(3)} of the blob was wrong`);
    t.ok(share < 1, `upstream sent ${share.toFixed(3)} of the blob in the next try`);
    for (const { swarm } of crowd.nodes.slice(0, 4)) t.same(swarm.banned, ["node4"]);
  },
);

await t.test("nodes that upstream does not let in get everything from the one it does", async (t) => {
  const bytes = seededBytes(8 * MIB, SEED + 3);
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream", pace: turn });
  const crowd = await Crowd.of(t, bytes, {
    nodes: 4,
    seed: SEED,
    upstream: (nth) => (nth === 2 ? upstream : undefined),
  });
  // It is there first: how long the others would wait for it is a matter of 300 ms, which a busy machine may take.
  const letIn = await crowd.start(2);
  const flights = [letIn, ...(await Promise.all([0, 1, 3].map((nth) => crowd.start(nth))))];
  await allGet(t, flights, bytes);
  t.ok(upstream.delivered < bytes.length * 1.2);
});

await t.test("upstream without ranges: one node streams, the others get it from there", async (t) => {
  const bytes = seededBytes(12 * MIB, SEED + 4);
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream", pace: turn, ignoreRange: true });
  const crowd = await Crowd.of(t, bytes, { nodes: 3, seed: SEED, upstream: () => upstream });
  const flights = await Promise.all(crowd.nodes.map((_, nth) => crowd.start(nth)));
  await allGet(t, flights, bytes);
  const share = upstream.delivered / bytes.length;
  t.ok(share < 2.2, `upstream sent ${share.toFixed(3)} of the blob`);
});

/** The record of a node that has removed the blob since. */
const stale = (): BlobSource => ({
  kind: "peer",
  peer: { id: "node3", host: "127.0.0.1", port: 1_003 },
  id: "node3",
  available: true,
  fetch: () => Promise.reject(new NotFoundError("BLOB_UNKNOWN", "it")),
  refuted: () => undefined,
});

await t.test("who is said to have the blob and has nothing is not asked for all of its pieces", async (t) => {
  const bytes = seededBytes(16 * MIB, SEED + 10);
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream", pace: turn });
  const crowd = await Crowd.of(t, bytes, {
    nodes: 4,
    seed: SEED,
    upstream: () => upstream,
    found: () => [stale()],
  });
  const flights = await Promise.all([0, 1, 2].map((nth) => crowd.start(nth)));
  await allGet(t, flights, bytes);
  const missed = crowd.nodes[3]?.missed ?? Infinity;
  t.comment(`asked for ${missed} pieces that it does not have`);
  // Two at most each has on its way when it knows.
  t.ok(missed > 0 && missed <= 3 * 4, `${missed}`);
});

await t.test("a member that can store no more leaves the swarm and gets the rest by itself", async (t) => {
  const bytes = seededBytes(12 * MIB, SEED + 6);
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream", pace: turn });
  const crowd = await Crowd.of(t, bytes, { nodes: 2, seed: SEED, upstream: () => upstream });
  const full = fullAfter(await fileSpool(t, bytes.length), 2 * MIB);
  const flights = [
    await crowd.start(
      0,
      new DegradingSpool(
        full,
        () => new MemorySpool(4 * MIB),
        () => undefined,
      ),
    ),
    await crowd.start(1),
  ];
  await allGet(t, flights, bytes);
});

await t.test("one that has room in memory for all of the blob stays a member, and gives, too", async (t) => {
  const bytes = seededBytes(12 * MIB, SEED + 8);
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream", pace: turn });
  const crowd = await Crowd.of(t, bytes, { nodes: 3, seed: SEED, upstream: () => upstream });
  const full = fullAfter(await fileSpool(t, bytes.length), 2 * MIB);
  let degraded = 0;
  const spools = [
    new WholeSpool(bytes.length),
    new DegradingSpool(
      full,
      () => new WholeSpool(bytes.length),
      () => (degraded += 1),
    ),
    undefined,
  ];
  const flights = await Promise.all(spools.map((spool, nth) => crowd.start(nth, spool)));
  await allGet(t, flights, bytes);
  t.equal(degraded, 1);
  const share = upstream.delivered / bytes.length;
  t.ok(share < 1.2, `upstream sent ${share.toFixed(3)} of the blob`);
  t.ok(
    crowd.nodes.every(({ given }) => given > 0),
    "all gave something",
  );
});
