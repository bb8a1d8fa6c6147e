/** Upstream is busy, broken, slow to answer, poor in what it can do, or gone, while a crowd pulls from it. */
import { setTimeout as outage } from "node:timers/promises";
import type { Test } from "tap";
import type { Fault as RegistryFault } from "./rig/oci-registry.ts";
import { MIB, type Arena } from "./swarm-faults/arena.ts";
import type { Asked, FaultyRegistry } from "./swarm-faults/faulty-registry.ts";
import { ON_THE_WAY } from "./swarm-faults/roles.ts";
import { EARLY, runGroup, type Fault, type Struck } from "./swarm-faults/run.ts";

/** What is asked for when a lease is fetched. */
const BLOBS = { kind: "blob", method: "GET" } as const;
const LINKS = { kind: "storage", method: "GET" } as const;
const WHERE_IT_BREAKS = MIB;
const REQUESTS = 3;

/** From now on so many requests for blobs meet the fault. */
async function order(
  registry: FaultyRegistry,
  fault: RegistryFault,
  happened: (asked: Asked) => boolean,
): Promise<Struck> {
  await registry.set([{ match: BLOBS, times: REQUESTS, ...fault }]);
  return {
    what: `${REQUESTS} requests for blobs met ${JSON.stringify(fault)}`,
    check: async (t: Test) => void t.ok((await registry.set([])).some(happened), "it did happen"),
  };
}

/** The registry does not answer at all, for so many seconds. */
function gone(arena: Arena, seconds: number): Fault {
  return {
    title: `upstream is gone for ${seconds} s`,
    seconds,
    named: "upstream is away",
    strike: async () => {
      await arena.upstream.kill();
      await outage(seconds * 1_000);
      await arena.upstream.start();
      return { what: `killed upstream, started it again ${seconds} s later`, destroyed: ON_THE_WAY };
    },
  };
}

await runGroup({
  name: "upstream",
  faults: (arena) => {
    const { faulty, redirecting } = arena.registries;
    return [
      {
        title: "upstream says 429 with Retry-After 2",
        registry: "faulty",
        share: EARLY,
        seconds: 2,
        named: "Retry-After",
        strike: () => order(faulty, { status: 429, retryAfter: "2" }, ({ status }) => status === 429),
      },
      {
        title: "upstream fails with 500",
        registry: "faulty",
        share: EARLY,
        seconds: 1,
        named: "leases are given out again",
        strike: () => order(faulty, { status: 500 }, ({ status }) => status === 500),
      },
      {
        title: "upstream stalls in the middle of an answer",
        registry: "faulty",
        share: EARLY,
        seconds: 2,
        named: "a lease lapses",
        strike: () =>
          order(faulty, { stallAfter: WHERE_IT_BREAKS }, ({ bytesSent }) => bytesSent === WHERE_IT_BREAKS),
      },
      {
        title: "upstream ends its answers early",
        registry: "faulty",
        share: EARLY,
        seconds: 1,
        named: "leases are given out again",
        strike: () =>
          order(faulty, { cutAfter: WHERE_IT_BREAKS }, ({ bytesSent }) => bytesSent === WHERE_IT_BREAKS),
      },
      {
        title: "upstream resets its answers",
        registry: "faulty",
        share: EARLY,
        seconds: 1,
        named: "leases are given out again",
        strike: () =>
          order(faulty, { resetAfter: WHERE_IT_BREAKS }, ({ bytesSent }) => bytesSent === WHERE_IT_BREAKS),
      },
      {
        title: "upstream knows no ranges and says no lengths",
        registry: "faulty",
        share: EARLY,
        seconds: 0,
        named: "one streams, the others take it from there",
        prepare: () => faulty.set([{ match: BLOBS, ignoreRange: true, chunked: true }]),
        strike: async () => ({
          what: "upstream ignored ranges",
          check: async (t) => {
            const asked = await faulty.set([]);
            t.ok(asked.length > 0 && asked.every(({ status }) => status === 200), "no part was ever sent");
          },
        }),
      },
      {
        title: "the links that blobs are redirected to expire in the middle of them",
        registry: "redirecting",
        share: EARLY,
        seconds: 1,
        named: "the registry is asked for another link",
        prepare: () => redirecting.set([{ match: LINKS, times: 6, cutAfter: WHERE_IT_BREAKS }]),
        strike: async () => ({
          what: "links lived 1.5 s, and six answers were cut",
          check: async (t) => {
            const asked = await redirecting.set([]);
            t.ok(
              asked.some(({ status }) => status === 403),
              "an expired link was used",
            );
          },
        }),
      },
      gone(arena, 5),
      gone(arena, 20),
    ];
  },
});
