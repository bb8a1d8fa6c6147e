/** Rare pieces first; but not for ever before the one that a reader waits for. */
import t from "tap";
import { pause } from "../../src/transfer/patience.ts";
import { BusyError } from "../../src/transfer/peer-client.ts";
import { PieceFetches } from "../../src/transfer/piece-fetches.ts";
import { memberOf, neighbourWith } from "./scripted-member.ts";

const COUNT = 8;
const READER_PATIENCE_MS = 10_000;
/** So long a neighbour thinks before it says that it is busy. */
const THINKS_MS = 1_000;

/**
 * One neighbour has every piece, the last is the rarest. It is busy for ever, but for pieces below `given`, which it never
 * brings to an end.
 */
async function setup(from: number, given: number) {
  const asked: { readonly piece: number; readonly at: number }[] = [];
  const made = memberOf(COUNT, async (peer, _digest, { piece }) => {
    asked.push({ piece, at: clock.now() });
    if (piece < given) await Promise.withResolvers<never>().promise;
    await pause(THINKS_MS, clock, new AbortController().signal);
    throw new BusyError(peer.id);
  });
  const { member, clock, state } = made;
  member.neighbours = [neighbourWith("a", [0, 1, 2, 3, 4, 5, 6, 7])];
  member.rarity = (piece) => 10 - piece;
  const fetches = new PieceFetches(made.options, made.deps);
  t.teardown(() => fetches.close());
  state.onChange = () => fetches.askAll(from);
  fetches.askAll(from);
  const askedSince = (at: number): number[] => asked.filter((one) => one.at >= at).map(({ piece }) => piece);
  return { clock, asked, askedSince };
}

await t.test("the first piece is asked for before rarer ones when it has been that for long", async (t) => {
  const { clock, askedSince } = await setup(0, 0);
  await clock.run(READER_PATIENCE_MS - 1);
  const before = askedSince(0);
  t.ok(before.length >= 2 * 5, `${before.length} requests`);
  t.same(new Set(before), new Set([7, 6]), "the rarest");
  await clock.run(2 * THINKS_MS);
  t.same(askedSince(READER_PATIENCE_MS).slice(0, 2), [0, 7], "now the first, then the rarest again");
});

await t.test("the next one is first then, and has as long to wait", async (t) => {
  const { clock, asked, askedSince } = await setup(0, 2);
  await clock.run(READER_PATIENCE_MS + 2 * THINKS_MS);
  const [first] = asked.filter(({ piece }) => piece === 0);
  const urgentAt = first?.at ?? Infinity;
  t.ok(urgentAt >= READER_PATIENCE_MS);
  await clock.run(urgentAt + READER_PATIENCE_MS - 1 - clock.now());
  t.notOk(askedSince(0).includes(1));
  await clock.run(2 * THINKS_MS);
  t.equal(askedSince(urgentAt + READER_PATIENCE_MS)[0], 1);
});

await t.test("the first is where the newest reader began", async (t) => {
  const { clock, askedSince } = await setup(3, 0);
  await clock.run(READER_PATIENCE_MS + 2 * THINKS_MS);
  t.equal(askedSince(READER_PATIENCE_MS)[0], 3);
  t.same(
    askedSince(0).filter((piece) => piece < 3),
    [],
  );
});
