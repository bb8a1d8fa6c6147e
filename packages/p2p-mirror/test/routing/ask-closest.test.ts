import { once } from "node:events";
import t from "tap";
import { askClosest } from "../../src/routing/ask-closest.ts";
import { Members, type Member } from "../../src/routing/members.ts";
import type { Peer } from "../../src/routing/router.ts";
import { newIdentity } from "../../src/trust/identity.ts";

const members = new Members();
for (let i = 0; i < 8; i += 1) members.connected((await newIdentity()).peerId);
const closest: readonly Member[] = members.closest(0, 8);
const provider = (id: string): Peer => ({ id, host: "10.0.0.1", port: 1 });

type Behaviour = "has it" | "has not" | "silent" | "broken";

/** Asks eight members that behave as given; says who was asked, who failed, and what came. */
async function scene(
  behaviours: readonly Behaviour[],
  options: { stopAfter?: number; signal?: AbortSignal } = {},
) {
  const asked: number[] = [];
  const failed: number[] = [];
  const stopped: number[] = [];
  const found: string[] = [];
  const began = performance.now();
  const answers = askClosest(
    closest,
    {
      ask: async (member, signal) => {
        const nth = closest.indexOf(member);
        asked.push(nth);
        switch (behaviours[nth] ?? "has not") {
          case "has it":
            return [provider(`of ${nth}`)];
          case "silent":
            await once(signal, "abort");
            stopped.push(nth);
            throw new Error("stopped");
          case "broken":
            throw new Error("refused");
          case "has not":
            return [];
          default:
            throw new Error("no such behaviour");
        }
      },
      failed: (member) => failed.push(closest.indexOf(member)),
    },
    options.signal ?? new AbortController().signal,
  );
  let answered: number | undefined;
  for (;;) {
    const next = await answers.next();
    if (next.done === true) {
      answered = next.value;
      break;
    }
    found.push(next.value.id);
    if (found.length === options.stopAfter) {
      await answers.return(0);
      break;
    }
  }
  return { asked, failed, stopped, found, answered, ms: performance.now() - began };
}

const all = (behaviour: Behaviour): Behaviour[] => Array.from({ length: 8 }, () => behaviour);

await t.test("the closest alone is asked when it has the key and one provider is enough", async (t) => {
  t.match(await scene(all("has it"), { stopAfter: 1 }), { asked: [0], found: ["of 0"], failed: [] });
});

await t.test("who wants all gets what every one of them knows", async (t) => {
  const { found, answered } = await scene(all("has it"));
  t.equal(found.length, 8);
  t.equal(answered, 8);
});

await t.test("nobody has it: all are asked once, and all answered", async (t) => {
  const { asked, found, answered } = await scene(all("has not"));
  t.strictSame(
    asked.toSorted((a, b) => a - b),
    [0, 1, 2, 3, 4, 5, 6, 7],
  );
  t.strictSame(found, []);
  t.equal(answered, 8);
});

await t.test("a closest that is silent costs milliseconds, not its timeout", async (t) => {
  const { found, ms, stopped, failed } = await scene(["silent", ...all("has it").slice(1)], { stopAfter: 1 });
  t.strictSame(found, ["of 1"]);
  t.ok(ms < 400, `${Math.round(ms)} ms`);
  t.strictSame(stopped, [0], "the question under way is stopped with the lookup");
  t.strictSame(failed, [], "and nobody is blamed for it");
});

await t.test("three silent ones do not keep the fourth from being asked", async (t) => {
  const { found } = await scene(["silent", "silent", "silent", ...all("has it").slice(3)], { stopAfter: 1 });
  t.strictSame(found, ["of 3"]);
});

await t.test(
  "silent and broken ones are reported, and the end comes within the timeout of one",
  async (t) => {
    const { failed, answered, ms } = await scene(["silent", "broken", ...all("has not").slice(2)]);
    t.strictSame(
      failed.toSorted((a, b) => a - b),
      [0, 1],
    );
    t.equal(answered, 6);
    t.ok(ms < 3_000, `${Math.round(ms)} ms`);
  },
);

await t.test("an aborted lookup ends at once, and blames nobody", async (t) => {
  const { found, failed } = await scene(all("silent"), { signal: AbortSignal.abort() });
  t.strictSame(found, []);
  t.strictSame(failed, []);
});
