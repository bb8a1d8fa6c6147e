/** What came by a peer's word alone waits for the digest, and those who read wait for it with containerd's patience. */
import { chunksOf, VirtualClock } from "@p2p-mirror/shared";
import t, { type Test } from "tap";
import type { Flight } from "../../src/transfer/flight.ts";
import { DRIP_BYTES, DRIP_MS, GIVE_OUT_MS } from "../../src/transfer/hold-back.ts";
import { MemorySpool, WholeSpool, type Spool } from "../../src/transfer/spool.ts";
import { fly, MIB, whole } from "./flying.ts";
import { ScriptedFinder, ScriptedSource, seededBytes, type Script } from "./scripted-source.ts";

const SEED = Number(process.env["TEST_SEED"] ?? Date.now() % 1e9);
t.comment(`seed ${SEED} (TEST_SEED)`);
const never = new AbortController().signal;
/** The endpoint takes a flight for stuck that brings nothing for four minutes, containerd after five. */
const SILENCE_MS = 240_000;
/** For the whole of one of these, in virtual time. */
const LONG_MS = 3_600_000;
/** Slow, but not so slow that others would take over. */
const CHUNK = 150 * 1024;
const CHUNK_MS = 500;

const flipped = (bytes: Buffer, at: number): Buffer => {
  const wrong = Buffer.from(bytes);
  wrong[at] = (wrong[at] ?? 0) ^ 1;
  return wrong;
};

interface Reading {
  readonly parts: Buffer[];
  /** When each came. */
  readonly at: number[];
  error: unknown;
  over: boolean;
}

function read(flight: Flight, bytes: Buffer, clock: VirtualClock): Reading {
  const reading: Reading = { parts: [], at: [], error: undefined, over: false };
  void (async () => {
    try {
      for await (const part of chunksOf(flight.open(whole(bytes), never))) {
        reading.parts.push(Buffer.from(part));
        reading.at.push(clock.now());
      }
    } catch (error) {
      reading.error = error;
    }
    reading.over = true;
  })();
  return reading;
}

/** The longest time without a byte, and whether the right ones came. */
function judge(t: Test, { parts, at, error }: Reading, bytes: Buffer, most = DRIP_MS + 10_000): void {
  t.equal(error, undefined);
  t.ok(Buffer.concat(parts).equals(bytes), "every byte is right");
  const longest = Math.max(...at.map((time, nth) => time - (at[nth - 1] ?? 0)));
  t.ok(longest <= most, `never ${most} ms without a byte: ${longest}`);
}

function scene(
  t: Test,
  { size, peers, upstream, spool }: { size: number; peers: Script[]; upstream?: Script; spool?: Spool },
): { clock: VirtualClock; flight: Flight; up: ScriptedSource | undefined; sources: ScriptedSource[] } {
  const clock = new VirtualClock();
  const pace = (): Promise<void> => new Promise((resolve) => clock.after(CHUNK_MS * peers.length, resolve));
  const slow = { chunkBytes: CHUNK, pace };
  const sources = peers.map((script, nth) => new ScriptedSource(`peer-${nth}`, { ...slow, ...script }));
  const up =
    upstream && new ScriptedSource("up", { ...upstream, kind: "upstream", pace: () => Promise.resolve() });
  const finder = new ScriptedFinder(up, sources);
  // Only the holders' bytes matter here: any of the right size.
  const bytes = upstream?.bytes ?? peers.at(-1)?.bytes ?? Buffer.alloc(size);
  const flight = fly(t, bytes, spool ?? new WholeSpool(size), finder, { clock });
  return { clock, flight, up, sources };
}

await t.test("a lone slow holder lies in a blob of any size: the pull gets upstream's bytes", async (t) => {
  const bytes = seededBytes(72 * MIB, SEED);
  const wrong = flipped(bytes, 3_000);
  const { clock, flight, up, sources } = scene(t, {
    size: bytes.length,
    peers: [{ bytes: wrong }],
    upstream: { bytes },
  });
  const reading = read(flight, bytes, clock);
  await clock.run(LONG_MS, () => reading.over);
  judge(t, reading, bytes);
  t.equal(sources[0]?.refutations, 1);
  const drips = (up?.requests ?? []).filter(({ start, end }) => end - start === DRIP_BYTES);
  t.ok(drips.length >= 5, `what it got meanwhile came from upstream, ${drips.length} times`);
  t.ok((reading.at[0] ?? 0) >= DRIP_MS - 10_000, "and nothing before");
});

await t.test("an honest one: upstream gives a few bytes, and the blob comes from the peer", async (t) => {
  const bytes = seededBytes(48 * MIB, SEED + 1);
  const { clock, flight, up, sources } = scene(t, {
    size: bytes.length,
    peers: [{ bytes }],
    upstream: { bytes },
  });
  const reading = read(flight, bytes, clock);
  await clock.run(LONG_MS, () => reading.over);
  judge(t, reading, bytes);
  t.equal(sources[0]?.delivered, bytes.length);
  t.ok((up?.delivered ?? 0) <= 32 * CHUNK, `upstream sent ${up?.delivered} bytes`);
  t.equal(
    up?.requests.every(({ start, end }) => end - start <= DRIP_BYTES),
    true,
  );
});

await t.test("upstream is gone: two holders vouch for each other, a third one lies", async (t) => {
  const bytes = seededBytes(48 * MIB, SEED + 2);
  const { clock, flight, sources } = scene(t, {
    size: bytes.length,
    peers: [{ bytes: flipped(bytes, 3_000) }, { bytes }, { bytes }],
  });
  const reading = read(flight, bytes, clock);
  await clock.run(LONG_MS, () => reading.over);
  judge(t, reading, bytes);
  t.strictSame(
    sources.map(({ refutations }) => refutations),
    [1, 0, 0],
    "the one that lied is known",
  );
});

await t.test("upstream is gone, and there is one holder: it goes out in time as it comes", async (t) => {
  const bytes = seededBytes(48 * MIB, SEED + 3);
  const { clock, flight } = scene(t, { size: bytes.length, peers: [{ bytes }] });
  const reading = read(flight, bytes, clock);
  await clock.run(LONG_MS, () => reading.over);
  judge(t, reading, bytes, SILENCE_MS - 60_000);
  t.ok((reading.at[0] ?? 0) >= GIVE_OUT_MS, "held back before");
});

await t.test("no room for all of it: it goes out as it comes, and a wrong one never ends", async (t) => {
  const bytes = seededBytes(8 * MIB, SEED + 4);
  const { clock, flight } = scene(t, {
    size: bytes.length,
    peers: [{ bytes: flipped(bytes, 3_000) }],
    upstream: { bytes },
    spool: new MemorySpool(2 * MIB),
  });
  const reading = read(flight, bytes, clock);
  await clock.run(LONG_MS, () => reading.over);
  t.match(reading.error, { code: "DIGEST_MISMATCH" });
  t.ok((reading.at[0] ?? Infinity) < DRIP_MS);
  t.ok(Buffer.concat(reading.parts).length < bytes.length, "short of its length");
});

await t.test(
  "upstream is gone, and two of three holders lie together: nobody gets a whole wrong body",
  async (t) => {
    const bytes = seededBytes(48 * MIB, SEED + 5);
    const wrong = flipped(bytes, 3_000);
    const { clock, flight, sources } = scene(t, {
      size: bytes.length,
      peers: [{ bytes: wrong }, { bytes: wrong }, { bytes }],
    });
    const reading = read(flight, bytes, clock);
    // Keeps the flight when the first reader is gone.
    const held = flight.open({ start: bytes.length - 1, end: bytes.length }, never);
    await clock.run(LONG_MS, () => reading.over);
    const late = read(flight, bytes, clock);
    await clock.run(LONG_MS, () => late.over);
    held.destroy();
    t.match(reading.error, { code: "DIGEST_MISMATCH" });
    t.ok(Buffer.concat(reading.parts).length < bytes.length, "what is wrong ends early");
    t.ok(sources.some(({ refutations }) => refutations === 1));
    t.equal(sources[2]?.refutations, 0, "the honest one is not blamed");
    t.equal(late.error, undefined);
    t.ok(Buffer.concat(late.parts).equals(bytes), "who comes later gets what is right");
  },
);

await t.test("upstream that says next to nothing holds up neither the look nor the end of it", async (t) => {
  const bytes = seededBytes(48 * MIB, SEED + 6);
  const { clock, flight, up } = scene(t, {
    size: bytes.length,
    peers: [{ bytes }],
    upstream: { bytes },
  });
  if (up === undefined) throw new TypeError("there is an upstream");
  up.script = {
    ...up.script,
    chunkBytes: 1024,
    pace: () => new Promise((resolve) => clock.after(25_000, resolve)),
  };
  const reading = read(flight, bytes, clock);
  await clock.run(LONG_MS, () => reading.over);
  judge(t, reading, bytes, SILENCE_MS - 60_000);
});

await t.test(
  "an upstream without ranges is asked once, and the flight ends when its reader does",
  async (t) => {
    const bytes = seededBytes(48 * MIB, SEED + 7);
    const { clock, flight, up } = scene(t, {
      size: bytes.length,
      peers: [{ bytes }],
      upstream: { bytes, ignoreRange: true },
    });
    const body = flight.open({ start: MIB, end: bytes.length }, never);
    body.on("error", () => undefined).resume();
    await clock.run(GIVE_OUT_MS);
    t.equal(up?.requests.length, 1);
    body.destroy();
    await clock.run(LONG_MS, () => flight.isOver);
    t.ok(flight.isOver);
  },
);
