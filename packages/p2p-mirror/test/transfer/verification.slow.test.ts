/** Several holders shared the work, and the whole is wrong: the pull succeeds, and who lied is known. */
import { buffer } from "node:stream/consumers";
import t, { type Test } from "tap";
import { MemorySpool } from "../../src/transfer/spool.ts";
import { fileSpool, fly, MIB, turn, whole } from "./flying.ts";
import { ScriptedFinder, ScriptedSource, seededBytes } from "./scripted-source.ts";

const SEED = Number(process.env["TEST_SEED"] ?? Date.now() % 1e9);
t.comment(`seed ${SEED} (TEST_SEED)`);
const never = new AbortController().signal;
const bytes = seededBytes(16 * MIB, SEED);

/** Each byte is another: whatever it gives, it lies. */
const wrong = seededBytes(bytes.length, SEED + 2);

interface Outcome {
  /** How often each peer was refuted. */
  readonly refutations: number[];
  readonly fromUpstream: number;
  /** How many of the peers gave anything. */
  readonly atWork: number;
}

async function pull(
  t: Test,
  lies: readonly boolean[],
  upstream: boolean,
  cutAfter?: (nth: number, request: number) => number | undefined,
): Promise<Outcome> {
  const peers = lies.map(
    (lie, nth) =>
      new ScriptedSource(`peer-${nth}`, {
        bytes: lie ? wrong : bytes,
        pace: turn,
        chunkBytes: 256 * 1024,
        cutAfter: (request) => cutAfter?.(nth, request),
      }),
  );
  const up = new ScriptedSource("up", { bytes, kind: "upstream" });
  const finder = new ScriptedFinder(upstream ? up : undefined, peers);
  const flight = fly(t, bytes, await fileSpool(t, bytes.length), finder);
  t.ok((await buffer(flight.open(whole(bytes), never))).equals(bytes), "every byte is right");
  await flight.done;
  return {
    refutations: peers.map(({ refutations }) => refutations),
    fromUpstream: up.delivered,
    atWork: peers.filter(({ delivered }) => delivered > 0).length,
  };
}

for (const lies of [
  [true, false, false],
  [false, false, true],
  [true, true, false],
  [false, true, true],
])
  await t.test(`upstream is gone, and of three holders these lie: ${lies.join(", ")}`, async (t) => {
    const { refutations, atWork } = await pull(t, lies, false);
    t.equal(atWork, 3, "they shared the work");
    t.strictSame(
      refutations,
      lies.map((lie) => (lie ? 1 : 0)),
    );
  });

await t.test(
  "upstream can be asked: it brings what was wrong, and the honest one is not blamed",
  async (t) => {
    const { refutations, fromUpstream } = await pull(t, [true, false], true);
    t.strictSame(refutations, [1, 0]);
    t.equal(fromUpstream, bytes.length);
  },
);

await t.test("upstream is gone, and the honest one breaks off when it is alone", async (t) => {
  const { refutations } = await pull(t, [false, true], false, (nth, request) =>
    nth === 0 && request === 1 ? 4 * MIB : undefined,
  );
  t.strictSame(refutations, [0, 1]);
});

await t.test("all of them lie: upstream gives it", async (t) => {
  const { refutations, fromUpstream } = await pull(t, [true, true], true);
  t.strictSame(refutations, [1, 1]);
  t.equal(fromUpstream, bytes.length);
});

await t.test(
  "nothing can be repeated: everybody who gave of it is refuted, and the pull fails",
  async (t) => {
    // One after the other fills a window: the first one ends early.
    const peers = [
      new ScriptedSource("first", { bytes, cutAfter: () => 4 * MIB }),
      new ScriptedSource("second", { bytes: wrong }),
    ];
    const flight = fly(t, bytes, new MemorySpool(2 * MIB), new ScriptedFinder(undefined, peers));
    await t.rejects(buffer(flight.open(whole(bytes), never)), { code: "DIGEST_MISMATCH" });
    t.strictSame(
      peers.map(({ refutations }) => refutations),
      [1, 1],
    );
  },
);
