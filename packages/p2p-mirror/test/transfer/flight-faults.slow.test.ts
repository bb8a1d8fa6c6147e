/** What goes wrong around a flight: sources that are away for a while, and a disk that takes nothing (more). */
import { buffer } from "node:stream/consumers";
import { chunksOf, SourceError } from "@p2p-mirror/shared";
import t from "tap";
import { DegradingSpool } from "../../src/transfer/degrading-spool.ts";
import { MemorySpool } from "../../src/transfer/spool.ts";
import { until } from "../../../../test/rig/until.ts";
import { fileSpool, fly, fullAfter, MIB, turn, whole } from "./flying.ts";
import { HurriedClock } from "./hurried-clock.ts";
import { ScriptedFinder, ScriptedSource, seededBytes } from "./scripted-source.ts";

const SEED = Number(process.env["TEST_SEED"] ?? Date.now() % 1e9);
t.comment(`seed ${SEED} (TEST_SEED)`);
const never = new AbortController().signal;

await t.test("nothing can be stored: a window of memory moves with the reader", async (t) => {
  const bytes = seededBytes(20 * MIB, SEED + 13);
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream" });
  const spool = new MemorySpool(2 * MIB);
  const flight = fly(t, bytes, spool, new ScriptedFinder(upstream));
  let most = 0;
  const chunks: Buffer[] = [];
  for await (const chunk of chunksOf(flight.open(whole(bytes), never))) {
    chunks.push(chunk);
    most = Math.max(most, spool.held);
  }
  t.ok(Buffer.concat(chunks).equals(bytes));
  t.ok(most <= 2 * MIB, `at most ${most} bytes in memory`);
});

await t.test("the disk fails in the middle: the reader does not notice", async (t) => {
  const bytes = seededBytes(12 * MIB, SEED + 14);
  const file = await fileSpool(t, bytes.length);
  const failing = fullAfter(file, 3 * MIB);
  let degraded: unknown;
  const spool = new DegradingSpool(
    failing,
    () => new MemorySpool(2 * MIB),
    (error) => (degraded = error),
  );
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream" });
  const flight = fly(t, bytes, spool, new ScriptedFinder(upstream));
  t.ok((await buffer(flight.open(whole(bytes), never))).equals(bytes));
  t.match(degraded, { code: "ENOSPC" });
  await flight.done;
  t.notOk(file.state.committed, "half a file is not stored");
  t.equal(upstream.requests.length, 1, "the bytes of the write that failed are not fetched again");
});

const away = (): Error => new SourceError("UNREACHABLE", "up", { message: "refused" });

await t.test("a source that comes up while the only one is silent takes over within 1.5 s", async (t) => {
  const bytes = seededBytes(3 * MIB, SEED + 17);
  const silent = new ScriptedSource("silent", { bytes, stallAfter: MIB });
  const late = new ScriptedSource("late", { bytes });
  const found = Promise.withResolvers<void>();
  const finder = new ScriptedFinder(undefined);
  finder.upstreamSource = new ScriptedSource("up", { bytes, kind: "upstream", unavailable: true });
  finder.peers = async function* peers() {
    yield silent;
    await found.promise;
    yield late;
  };
  const flight = fly(t, bytes, await fileSpool(t, bytes.length), finder);
  const reading = buffer(flight.open(whole(bytes), never));
  await until("the first one fell silent", () => silent.delivered >= MIB);
  const began = performance.now();
  found.resolve();
  t.ok((await reading).equals(bytes));
  t.ok(performance.now() - began < 10_000, "and not after the 30 s that the last source has");
});

await t.test("a blob that was begun waits for an upstream that is away for some seconds", async (t) => {
  const bytes = seededBytes(2 * MIB, SEED + 18);
  let failures = 7;
  const upstream = new ScriptedSource("up", {
    bytes,
    kind: "upstream",
    cutAfter: (request) => (request === 0 ? MIB : undefined),
    refuse: (request) => (request > 0 && failures-- > 0 ? away() : undefined),
  });
  const clock = new HurriedClock(20);
  const flight = fly(t, bytes, await fileSpool(t, bytes.length), new ScriptedFinder(upstream), { clock });
  t.ok((await buffer(flight.open(whole(bytes), never))).equals(bytes));
  t.equal(upstream.requests.length, 1 + 7 + 1);
});

await t.test(
  "a blob that nobody has begun to deliver is declined at once when upstream is away",
  async (t) => {
    const bytes = seededBytes(MIB, SEED + 19);
    const upstream = new ScriptedSource("up", { bytes, kind: "upstream", refuse: away });
    const flight = fly(t, bytes, await fileSpool(t, bytes.length), new ScriptedFinder(upstream));
    const began = performance.now();
    await t.rejects(flight.accepted, { code: "ALL_SOURCES_FAILED" });
    t.ok(performance.now() - began < 1_000);
  },
);

await t.test("a holder that restarts in the middle is found again, although upstream is away", async (t) => {
  const bytes = seededBytes(2 * MIB, SEED + 20);
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream", refuse: away });
  const peer = new ScriptedSource("peer", {
    bytes,
    cutAfter: (request) => (request === 0 ? MIB : undefined),
    refuse: (request) => (request === 1 || request === 2 ? away() : undefined),
  });
  const clock = new HurriedClock(20);
  const flight = fly(t, bytes, await fileSpool(t, bytes.length), new ScriptedFinder(upstream, [peer]), {
    clock,
  });
  t.ok((await buffer(flight.open(whole(bytes), never))).equals(bytes));
});

await t.test("the disk is full while several sources deliver, and then the one in front dies", async (t) => {
  const bytes = seededBytes(80 * MIB, SEED + 21);
  const peers = [
    // Both have brought 20 MiB when the disk is full; the second one then waits far ahead of the window.
    new ScriptedSource("front", { bytes, pace: turn, cutAfter: () => 24 * MIB }),
    new ScriptedSource("second", { bytes, pace: turn }),
  ];
  const file = await fileSpool(t, bytes.length);
  const failing = fullAfter(file, 40 * MIB);
  const spool = new DegradingSpool(
    failing,
    () => new MemorySpool(2 * MIB),
    () => undefined,
  );
  const flight = fly(t, bytes, spool, new ScriptedFinder(undefined, peers));
  const began = performance.now();
  t.ok((await buffer(flight.open(whole(bytes), never))).equals(bytes));
  t.ok(performance.now() - began < 20_000, "nobody waits for a timer to move the window on");
});

await t.test("nothing can be stored, and a reader begins in the middle", async (t) => {
  const bytes = seededBytes(20 * MIB, SEED + 22);
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream" });
  const range = { start: 12 * MIB + 5, end: bytes.length };
  const flight = fly(t, bytes, new MemorySpool(2 * MIB), new ScriptedFinder(upstream), {
    start: range.start,
  });
  t.ok((await buffer(flight.open(range, never))).equals(bytes.subarray(range.start)));
});

await t.test("upstream falls silent, and a peer that was found late takes over", async (t) => {
  const bytes = seededBytes(3 * MIB, SEED + 23);
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream", stallAfter: MIB });
  const late = new ScriptedSource("late", { bytes });
  const found = Promise.withResolvers<void>();
  const finder = new ScriptedFinder(upstream);
  finder.peers = async function* peers() {
    await found.promise;
    yield late;
  };
  const flight = fly(t, bytes, await fileSpool(t, bytes.length), finder);
  const reading = buffer(flight.open(whole(bytes), never));
  await until("upstream fell silent", () => upstream.delivered >= MIB);
  const began = performance.now();
  found.resolve();
  t.ok((await reading).equals(bytes));
  t.ok(performance.now() - began < 10_000, "and not after the 30 s that upstream has alone");
  t.ok((late.requests[0]?.start ?? 0) >= MIB / 2, "only the rest was fetched again");
});

/** 16 KiB in 25 ms: next to nothing on a clock that goes twenty times as fast. */
const dripping = { pace: () => new Promise<void>((resolve) => void setTimeout(resolve, 25)) };

await t.test("a peer that brings next to nothing leaves its run to upstream", async (t) => {
  const blob = seededBytes(3 * MIB, 30);
  const peer = new ScriptedSource("peer", { bytes: blob, ...dripping });
  const upstream = new ScriptedSource("up", { kind: "upstream", bytes: blob });
  const finder = new ScriptedFinder(upstream, [peer]);
  const flight = fly(t, blob, await fileSpool(t, blob.length), finder, { clock: new HurriedClock(20) });
  t.ok((await buffer(flight.open(whole(blob), never))).equals(blob));
  t.equal(peer.requests.length, 1);
  t.ok(peer.delivered > 0 && peer.delivered < MIB, `${peer.delivered} bytes of the peer`);
  t.ok(upstream.delivered > 2 * MIB, `${upstream.delivered} bytes of upstream`);
  t.equal(peer.refutations, 0);
});

await t.test("it is asked again when upstream does not give the blob after all", async (t) => {
  const blob = seededBytes(2 * MIB, 31);
  const peer = new ScriptedSource("peer", { bytes: blob, ...dripping });
  const upstream = new ScriptedSource("up", {
    kind: "upstream",
    bytes: blob,
    refuse: () => new SourceError("DENIED", "registry"),
  });
  const finder = new ScriptedFinder(upstream, [peer]);
  const flight = fly(t, blob, await fileSpool(t, blob.length), finder, { clock: new HurriedClock(20) });
  t.ok((await buffer(flight.open(whole(blob), never))).equals(blob));
  t.equal(upstream.requests.length, 1, "it was asked");
  t.same([peer.requests.length, peer.requests[0]?.start], [2, 0], "the last source left is not given up");
});
