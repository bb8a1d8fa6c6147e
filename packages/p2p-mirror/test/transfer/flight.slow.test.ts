import { buffer } from "node:stream/consumers";
import { chunksOf, NotFoundError, SourceError } from "@p2p-mirror/shared";
import t from "tap";
import { BusyError } from "../../src/transfer/peer-client.ts";
import { MemorySpool } from "../../src/transfer/spool.ts";
import { fileSpool, fly, MIB, turn, whole } from "./flying.ts";
import { ScriptedFinder, ScriptedSource, seededBytes } from "./scripted-source.ts";

const SEED = Number(process.env["TEST_SEED"] ?? Date.now() % 1e9);
t.comment(`seed ${SEED} (TEST_SEED)`);
const never = new AbortController().signal;

await t.test("one holder: the whole blob in one request, stored, every byte right", async (t) => {
  const bytes = seededBytes(5 * MIB + 17, SEED);
  const peer = new ScriptedSource("peer", { bytes });
  const spool = await fileSpool(t, bytes.length);
  const flight = fly(t, bytes, spool, new ScriptedFinder(undefined, [peer]));
  const body = await buffer(flight.open(whole(bytes), never));
  t.ok(body.equals(bytes));
  await flight.done;
  t.ok(spool.state.committed);
  t.strictSame(peer.requests, [whole(bytes)], "one request");
  await flight.closed;
  t.ok(spool.state.released);
});

await t.test("several holders share the work, and no byte is fetched twice", async (t) => {
  const bytes = seededBytes(24 * MIB, SEED + 1);
  const peers = [1, 2, 3].map((n) => new ScriptedSource(`peer-${n}`, { bytes, pace: turn }));
  const flight = fly(t, bytes, await fileSpool(t, bytes.length), new ScriptedFinder(undefined, peers));
  t.ok((await buffer(flight.open(whole(bytes), never))).equals(bytes));
  for (const peer of peers)
    t.ok(peer.delivered > bytes.length / 10, `${peer.id} delivered ${peer.delivered}`);
  const delivered = peers.reduce((sum, peer) => sum + peer.delivered, 0);
  t.ok(delivered < bytes.length * 1.1, `${delivered} of ${bytes.length}`);
});

await t.test("any number of readers with any ranges attach to one flight", async (t) => {
  const bytes = seededBytes(9 * MIB + 1, SEED + 2);
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream" });
  const flight = fly(t, bytes, await fileSpool(t, bytes.length), new ScriptedFinder(upstream));
  const ranges = [
    whole(bytes),
    { start: 1, end: 2 },
    { start: MIB - 1, end: 8 * MIB + 3 },
    { start: bytes.length - 1, end: bytes.length },
    { start: 4 * MIB, end: bytes.length },
  ];
  const bodies = await Promise.all(ranges.map((range) => buffer(flight.open(range, never))));
  for (const [i, range] of ranges.entries()) {
    t.ok(bodies[i]?.equals(bytes.subarray(range.start, range.end)), JSON.stringify(range));
  }
  t.equal(upstream.requests.length, 1);
});

await t.test("a source that is cut is resumed at the byte, from the next source", async (t) => {
  const bytes = seededBytes(6 * MIB, SEED + 3);
  const first = new ScriptedSource("first", { bytes, cutAfter: () => 2 * MIB + 16_384 });
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream" });
  const flight = fly(t, bytes, await fileSpool(t, bytes.length), new ScriptedFinder(upstream, [first]));
  t.ok((await buffer(flight.open(whole(bytes), never))).equals(bytes));
  t.equal(first.requests.length, 1, "a peer that failed is not asked again");
  t.ok((upstream.requests[0]?.start ?? 0) > MIB, `upstream was asked from ${upstream.requests[0]?.start}`);
});

await t.test("a silent peer loses its run after 1.5 s while there is upstream", async (t) => {
  const bytes = seededBytes(3 * MIB, SEED + 4);
  const silent = new ScriptedSource("silent", { bytes, stallAfter: MIB });
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream" });
  const flight = fly(t, bytes, await fileSpool(t, bytes.length), new ScriptedFinder(upstream, [silent]));
  const began = performance.now();
  t.ok((await buffer(flight.open(whole(bytes), never))).equals(bytes));
  t.ok(performance.now() - began > 1_000, "it was given its time");
  t.ok(performance.now() - began < 10_000, "but not more");
});

await t.test("wrong bytes of a peer: refuted, fetched elsewhere, and no reader ever saw them", async (t) => {
  const bytes = seededBytes(4 * MIB, SEED + 5);
  const wrong = Buffer.from(bytes);
  wrong[2 * MIB] = (wrong[2 * MIB] ?? 0) ^ 1;
  const liar = new ScriptedSource("liar", { bytes: wrong });
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream" });
  const flight = fly(t, bytes, await fileSpool(t, bytes.length), new ScriptedFinder(upstream, [liar]));
  t.ok((await buffer(flight.open(whole(bytes), never))).equals(bytes));
  t.equal(liar.refutations, 1);
  t.equal(upstream.requests.length, 1);
});

await t.test(
  "a peer with another size for the digest is passed over, not banned: the manifest may be what is wrong",
  async (t) => {
    const bytes = seededBytes(MIB, SEED + 6);
    const liar = new ScriptedSource("liar", { bytes, size: MIB + 1 });
    const upstream = new ScriptedSource("up", { bytes, kind: "upstream" });
    const flight = fly(t, bytes, await fileSpool(t, bytes.length), new ScriptedFinder(upstream, [liar]));
    t.ok((await buffer(flight.open(whole(bytes), never))).equals(bytes));
    t.equal(liar.refutations, 0);
  },
);

await t.test("wrong bytes of a peer when nothing can be stored: the window is filled anew", async (t) => {
  // Chunks of other boundaries than the first time: a stale one must not come up again.
  const bytes = seededBytes(4 * MIB + 5, SEED + 17);
  const wrong = Buffer.from(bytes).map((byte) => byte ^ 0x55);
  const liar = new ScriptedSource("liar", { bytes: Buffer.from(wrong), cutAfter: () => 3 * MIB });
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream", chunkBytes: 10_000 });
  const flight = fly(t, bytes, new MemorySpool(64 * MIB), new ScriptedFinder(upstream, [liar]));
  t.ok((await buffer(flight.open(whole(bytes), never))).equals(bytes));
  t.equal(liar.refutations, 1);
});

await t.test("wrong bytes of upstream never reach the end of a body", async (t) => {
  const bytes = seededBytes(MIB, SEED + 7);
  const wrong = Buffer.from(bytes);
  wrong[10] = (wrong[10] ?? 0) ^ 1;
  const upstream = new ScriptedSource("up", { bytes: wrong, kind: "upstream" });
  const spool = await fileSpool(t, bytes.length);
  const flight = fly(t, bytes, spool, new ScriptedFinder(upstream));
  let seen = 0;
  await t.rejects(
    async () => {
      for await (const chunk of chunksOf(flight.open(whole(bytes), never))) seen += chunk.length;
    },
    { code: "DIGEST_MISMATCH" },
  );
  t.ok(seen < bytes.length, `${seen} of ${bytes.length}`);
  t.notOk(spool.state.committed);
});

await t.test("a range in the middle is not complete before the whole blob is verified", async (t) => {
  const bytes = seededBytes(2 * MIB, SEED + 8);
  const gate = Promise.withResolvers<void>();
  const upstream = new ScriptedSource("up", {
    bytes,
    kind: "upstream",
    pace: (offset) => (offset >= MIB ? gate.promise : Promise.resolve()),
  });
  const flight = fly(t, bytes, await fileSpool(t, bytes.length), new ScriptedFinder(upstream));
  let seen = 0;
  const range = { start: 1_000, end: 300_000 };
  const reading = (async () => {
    for await (const chunk of chunksOf(flight.open(range, never))) {
      seen += chunk.length;
      if (seen >= range.end - range.start - 64 * 1024) gate.resolve();
    }
  })();
  await gate.promise;
  t.ok(seen < range.end - range.start, "the tail waits although its bytes are here");
  await reading;
  t.equal(seen, range.end - range.start);
});

await t.test("a resume far ahead is served first, not after everything below it", async (t) => {
  const bytes = seededBytes(160 * MIB, SEED + 16);
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream", pace: turn, chunkBytes: 65_536 });
  const range = { start: 150 * MIB, end: bytes.length };
  const first = fly(t, bytes, await fileSpool(t, bytes.length), new ScriptedFinder(upstream), {
    start: range.start,
  });
  t.ok((await buffer(first.open(range, never))).equals(bytes.subarray(range.start)));
  t.ok((upstream.requests[0]?.start ?? 0) >= 148 * MIB, "the flight begins where its reader does");

  upstream.requests.length = 0;
  const second = fly(t, bytes, await fileSpool(t, bytes.length), new ScriptedFinder(upstream));
  await second.accepted;
  const late = second.open(range, never);
  const lowest = buffer(second.open(whole(bytes), never));
  let below = 0;
  for await (const chunk of chunksOf(late)) {
    below = second.progress.received - chunk.length;
    break;
  }
  t.ok(below < 64 * MIB, `${below} bytes came before the first one of the resume`);
  t.ok((await lowest).equals(bytes), "and the reader from the start gets everything, too");
});

await t.test("a reader that leaves does not end the flight of another", async (t) => {
  const bytes = seededBytes(4 * MIB, SEED + 9);
  const gate = Promise.withResolvers<void>();
  const upstream = new ScriptedSource("up", {
    bytes,
    kind: "upstream",
    pace: (offset) => (offset >= 2 * MIB ? gate.promise : Promise.resolve()),
  });
  const flight = fly(t, bytes, await fileSpool(t, bytes.length), new ScriptedFinder(upstream));
  const leaving = flight.open(whole(bytes), never);
  const staying = buffer(flight.open(whole(bytes), never));
  for await (const chunk of chunksOf(leaving)) {
    t.ok(chunk.length > 0);
    break;
  }
  gate.resolve();
  t.ok((await staying).equals(bytes));
  t.equal(upstream.requests.length, 1);
});

await t.test("a busy peer names another, which is asked before upstream", async (t) => {
  const bytes = seededBytes(MIB, SEED + 15);
  const other = { id: "other", host: "127.0.0.1", port: 1 };
  const busy = new ScriptedSource("busy", { bytes, refuse: () => new BusyError("busy", [other]) });
  const named = new ScriptedSource("other", { bytes });
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream" });
  const finder = new ScriptedFinder(upstream, [busy]);
  finder.named.set(other.id, named);
  const flight = fly(t, bytes, await fileSpool(t, bytes.length), finder);
  t.ok((await buffer(flight.open(whole(bytes), never))).equals(bytes));
  t.equal(named.requests.length, 1);
  t.equal(upstream.requests.length, 0);
});

await t.test("nobody has it and upstream refuses: declined at once", async (t) => {
  const bytes = seededBytes(10, SEED);
  const flight = fly(t, bytes, await fileSpool(t, 10), new ScriptedFinder(undefined));
  await t.rejects(flight.accepted, { code: "BLOB_UNKNOWN" });
  await t.rejects(buffer(flight.open(whole(bytes), never)), NotFoundError);
});

await t.test(
  "upstream is rate limited for less than the patience: the request waits and gets its bytes",
  async (t) => {
    const bytes = seededBytes(MIB, SEED + 10);
    const upstream = new ScriptedSource("up", {
      bytes,
      kind: "upstream",
      refuse: (request) =>
        request === 0 ? new SourceError("RATE_LIMITED", "up", { status: 429, retryAfterMs: 50 }) : undefined,
    });
    const flight = fly(t, bytes, await fileSpool(t, bytes.length), new ScriptedFinder(upstream));
    t.ok((await buffer(flight.open(whole(bytes), never))).equals(bytes));
    t.equal(upstream.requests.length, 2);
  },
);

await t.test("upstream that cuts each answer is resumed as long as there is progress", async (t) => {
  const bytes = seededBytes(2 * MIB, SEED + 11);
  const upstream = new ScriptedSource("up", { bytes, kind: "upstream", cutAfter: () => MIB });
  const flight = fly(t, bytes, await fileSpool(t, bytes.length), new ScriptedFinder(upstream));
  t.ok((await buffer(flight.open(whole(bytes), never))).equals(bytes));
  t.equal(upstream.requests.length, 2);
});

await t.test("a registry that ignores ranges is cut in at the right byte", async (t) => {
  const bytes = seededBytes(2 * MIB, SEED + 12);
  const upstream = new ScriptedSource("up", {
    bytes,
    kind: "upstream",
    ignoreRange: true,
    cutAfter: (request) => (request === 0 ? MIB : undefined),
  });
  const flight = fly(t, bytes, await fileSpool(t, bytes.length), new ScriptedFinder(upstream));
  t.ok((await buffer(flight.open(whole(bytes), never))).equals(bytes));
});

await t.test("an empty blob is a blob", async (t) => {
  const bytes = Buffer.alloc(0);
  const flight = fly(t, bytes, await fileSpool(t, 0), new ScriptedFinder(undefined));
  await flight.accepted;
  t.equal((await buffer(flight.open(whole(bytes), never))).length, 0);
});
