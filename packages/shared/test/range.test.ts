import t from "tap";
import { formatContentRange, parseContentRange, readRange, type RangeRequest } from "@p2p-mirror/shared";

const whole: RangeRequest = { kind: "whole" };
const unsatisfiable: RangeRequest = { kind: "unsatisfiable" };
const part = (start: number, end: number): RangeRequest => ({ kind: "part", range: { start, end } });

await t.test("a Range header against a blob of 1000 bytes", async (t) => {
  const cases: [string | undefined, RangeRequest][] = [
    [undefined, whole],
    ["bytes=0-499", part(0, 500)],
    ["bytes=500-", part(500, 1000)],
    ["bytes=999-", part(999, 1000)],
    ["bytes=0-0", part(0, 1)],
    ["bytes=0-999", part(0, 1000)],
    ["bytes=900-5000", part(900, 1000)],
    ["bytes=-1", part(999, 1000)],
    ["bytes=-5000", part(0, 1000)],
    ["bytes=1000-", unsatisfiable],
    ["bytes=1000-2000", unsatisfiable],
    ["bytes=-0", unsatisfiable],
    // Ignored, as RFC 9110 14.2 lets a server: no valid range, other units, several.
    ["bytes=-", whole],
    ["bytes=500-400", whole],
    ["bytes=a-b", whole],
    ["bytes=0-1,5-6", whole],
    ["pages=1-2", whole],
    ["bytes 0-1", whole],
    ["bytes=0x0-1", whole],
    ["bytes=99999999999999999999-", whole],
  ];
  for (const [header, expected] of cases) t.same(readRange(header, 1000), expected, String(header));
});

await t.test("bytes=0- is the whole, so that containerd takes one stream", async (t) => {
  t.same(readRange("bytes=0-", 1000), whole);
});

await t.test("an empty blob has nothing to take a part of", async (t) => {
  t.same(readRange("bytes=0-", 0), whole);
  t.same(readRange("bytes=0-0", 0), whole);
  t.same(readRange("bytes=1-", 0), unsatisfiable);
  t.same(readRange("bytes=-5", 0), whole);
  t.same(readRange(undefined, 0), whole);
});

await t.test("no header makes a range outside the blob (10,000 seeded ones)", async (t) => {
  let seed = 20_261_124;
  t.comment(`seed ${seed}`);
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
    return seed % below;
  };
  for (let round = 0; round < 10_000; round++) {
    const size = random(50);
    const number = (): string => (random(5) === 0 ? "" : String(random(80)));
    const header = `bytes=${number()}-${number()}`;
    const request = readRange(header, size);
    if (request.kind !== "part") continue;
    const { start, end } = request.range;
    if (!(start >= 0 && start < end && end <= size)) t.fail(`${header} of ${size}: ${start}..${end}`);
  }
  t.pass("all of them inside");
});

await t.test("Content-Range goes there and back", async (t) => {
  t.equal(formatContentRange({ start: 0, end: 500 }, 1000), "bytes 0-499/1000");
  t.same(parseContentRange("bytes 0-499/1000"), { range: { start: 0, end: 500 }, size: 1000 });
  t.same(parseContentRange("bytes 999-999/1000"), { range: { start: 999, end: 1000 }, size: 1000 });
});

await t.test("a Content-Range that cannot be right is refused", async (t) => {
  const wrong = [
    "",
    "bytes 0-499/*",
    "bytes */1000",
    "bytes 500-499/1000",
    "bytes 0-1000/1000",
    "bytes=0-499/1000",
    "bytes -1-4/10",
    "bytes 0-4/5 ",
    "bytes 0-1/99999999999999999999",
  ];
  for (const header of wrong) t.throws(() => parseContentRange(header), { code: "RANGE_INVALID" }, header);
});
