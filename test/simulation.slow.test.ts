/** Hundreds of crowds with faults on a virtual clock; and that the simulator would notice if the code were wrong. */
import t from "tap";
import { Blobs } from "../bench/lib/simulation/blobs.ts";
import { undisturbed } from "../bench/lib/simulation/crowds.ts";
import { disturbed } from "../bench/lib/simulation/disturbed.ts";
import { FAULTS, schedule } from "../bench/lib/simulation/faults.ts";
import {
  forgetsTheStandIn,
  keepingLeasesOfWhoLeft,
  ordersStrictly,
  skipsTheHashCheck,
  waitingForEver,
  withoutBackpressure,
  withoutHope,
} from "../bench/lib/simulation/mutations.ts";
import { play, type Scenario } from "../bench/lib/simulation/scenarios.ts";
import { replayOf, runSeeds } from "../bench/lib/simulation/seeds.ts";
import { World } from "../bench/lib/simulation/world.ts";

const MIB = 1024 * 1024;
const SEEDS = 500;
const blobs = new Blobs();

await t.test("a crowd that nothing disturbs is near the bound, and upstream sends one copy", async (t) => {
  for (const nodes of [4, 8, 16]) {
    const { seconds, bound, copies, messages, incomplete } = await undisturbed(
      { nodes, size: 32 * MIB, seed: 1 },
      blobs,
    );
    t.equal(incomplete, 0, "every reader has every byte");
    t.ok(seconds <= 1.25 * bound, `${nodes} nodes: ${(seconds / bound).toFixed(3)} of the bound`);
    t.ok(copies <= 1.05, `${copies.toFixed(3)} copies`);
    t.ok(messages <= 600, `${Math.round(messages)} messages of a node`);
  }
});

await t.test("around one holder of the whole, nearly all comes from it and at its speed", async (t) => {
  for (const seed of [1, 2, 3]) {
    const { seconds, bound, copies, incomplete } = await undisturbed(
      { nodes: 8, size: 64 * MIB, seed, shape: "seeded" },
      blobs,
    );
    t.equal(incomplete, 0, "every reader has every byte");
    t.ok(seconds <= 1.15 * bound, `${(seconds / bound).toFixed(3)} of the bound`);
    t.ok(copies <= 0.3, `${copies.toFixed(3)} copies`);
  }
});

await t.test(
  `${SEEDS} crowds with faults: whoever lives gets every byte, and nothing is left behind`,
  async (t) => {
    const { failed, summary } = await runSeeds(
      { first: 1, count: SEEDS, faults: FAULTS, say: (text) => t.comment(text) },
      blobs,
    );
    for (const run of failed) t.fail(`${run.problem}: ${replayOf(run, FAULTS)}`);
    t.equal(summary.runs, SEEDS);
    t.ok(
      Object.keys(summary.byNodes).every((nodes) => Number(nodes) >= 3),
      "of three nodes at least",
    );
    t.ok(
      Object.keys(summary.byFaults).every((faults) => Number(faults) >= 2),
      "with two faults at least",
    );
    for (const kind of FAULTS)
      t.ok((summary.byKind[kind] ?? 0) >= SEEDS / 20, `${kind} happens often enough`);
    t.ok(summary.sourceless >= SEEDS / 50, `no source is left in ${summary.sourceless} of them`);
  },
);

await t.test("where no source is left each pull fails in time, and one that hangs is noticed", async (t) => {
  for (const seed of [2, 175, 205]) {
    const { problem, sourceless, failedPulls } = await disturbed({ seed }, blobs);
    t.equal(problem, undefined);
    t.equal(sourceless, true, `seed ${seed}: upstream is gone for good`);
    t.ok(failedPulls > 0, `${failedPulls} pulls failed`);
    const hangs = await waitingForEver(() => disturbed({ seed }, blobs));
    t.match(hangs.problem, /neither ends nor fails/, "patience has no end");
  }
});

await t.test(
  "no ranges, and every other piece of one member is wrong: upstream's stream begins anew once",
  async (t) => {
    const { problem, copies } = await disturbed({ seed: 3193 }, blobs);
    t.equal(problem, undefined);
    t.ok(copies <= 3, `${copies.toFixed(2)} copies`);
  },
);

await t.test(
  "who believes no signer any more, and no peer, fails soon: the next pull finds out who lied, and others have all of it",
  async (t) => {
    const { problem, seconds, copies } = await disturbed({ seed: 1933 }, blobs);
    t.equal(problem, undefined);
    // It was 110 s, most of them in vain.
    t.ok(seconds <= 40, `${seconds} s`);
    t.ok(copies <= 2.5, `${copies.toFixed(2)} copies`);
  },
);

await t.test("who is not let in by upstream, beside one that is, has no need to fail", async (t) => {
  for (const seed of [1, 3, 4]) {
    const options = { seed, faults: ["401 for some", "flips"] as const };
    t.equal((await disturbed(options, blobs)).problem, undefined);
    const { problem } = await withoutHope(() => disturbed(options, blobs));
    t.match(problem, /failed without need/, "nobody waits for what others bring");
  }
});

await t.test(
  "upstream is gone and nobody has it: each pull is over soon, since its client may do better",
  async (t) => {
    for (const nodes of [1, 2, 5, 20]) {
      const links = { upstream: 4 * MIB, egress: 20 * MIB, ingress: 20 * MIB };
      const world = await new World(
        { seed: 3, nodes, size: 8 * MIB, links, latencyMs: 1, encoded: true },
        blobs,
      ).start();
      world.upstream.faults.lost = true;
      for (const node of world.nodes) {
        node.wanted = true;
        void node.pull(() => 60_000);
      }
      await world.clock.run(60_000, () => world.nodes.every(({ pulls }) => pulls.length > 0));
      for (const { pulls } of world.nodes) {
        const [first] = pulls;
        const ms = first === undefined ? Infinity : first.ended - first.began;
        t.ok(first?.error !== undefined && ms < 5_000, `${nodes} nodes: ${ms} ms`);
      }
      for (const node of world.nodes) node.wanted = false;
      await world.close();
    }
  },
);

await t.test("the same seed makes the same run", async (t) => {
  for (const seed of [3, 11, 27]) {
    t.strictSame(await disturbed({ seed }, new Blobs()), await disturbed({ seed }, blobs), `seed ${seed}`);
  }
});

const is = (scenario: Scenario): Promise<string | undefined> => play(scenario, blobs);

/** The node that coordinates. */
const coordinator = (world: World): string => world.closest(1)[0]?.id ?? "";

/** A member that is to fetch something, beside the coordinator. */
function holder(world: World): string {
  const leases = world.node(coordinator(world)).swarm?.leased(world.digest) ?? [];
  return leases.find(({ holder }) => holder !== coordinator(world))?.holder ?? "";
}

const NOTICED_AFTER_MS = 1_500;
const base = { nodes: 6, time: 2, copies: 1.35 };

const coordinatorDies = (seed: number): Scenario => ({
  ...base,
  seed,
  happens: (world) => world.clock.after(NOTICED_AFTER_MS, () => world.node(coordinator(world)).crash()),
});

const oneFlips = (seed: number): Scenario => ({
  ...base,
  seed,
  happens: ({ nodes: [first] }) => {
    if (first !== undefined) first.flips = (piece) => piece % 3 === 1;
  },
});

const holderLeaves = (seed: number): Scenario => ({
  ...base,
  seed,
  happens: (world) => world.clock.after(NOTICED_AFTER_MS, () => void world.node(holder(world)).giveUp()),
});

/** All want the same from one: it matters that each takes something else. */
const oneHasAll = (seed: number): Scenario => ({
  nodes: 8,
  seed,
  size: 16 * MIB,
  seeded: true,
  time: 3,
  copies: 1,
});

/** Each is the only one of its zone, so that all pieces are its own to bring (4.1 of the bound, when all began with the same). */
const eachInAZone = (seed: number): Scenario => ({ ...oneHasAll(seed), zones: 8, time: 2 });

/**
 * Three zones: each piece enters one by the node whose turn it is. Of ten nodes in a zone that one may have no neighbour that has
 * it, and others wait two seconds for it.
 */
const inThreeZones = (seed: number, nodes: number, entries: number): Scenario => ({
  nodes,
  seed,
  zones: 3,
  size: 32 * MIB,
  time: 1.5,
  copies: 1.05,
  entries,
});

/** What the slow one should bring in to the others they get without it (they took 4.1 of the bound, and 1.6 with eight). */
const oneIsSlow = (seed: number, nodes: number, share: number): Scenario => ({
  nodes,
  seed,
  size: 64 * MIB,
  seeded: true,
  happens: (world) => {
    const last = world.nodes.at(-1);
    if (last === undefined) return;
    for (const link of [last.up, last.down]) link.rate *= share;
    // It goes on, and is not waited for.
    world.clock.after(1, () => (last.wanted = false));
  },
  time: 1.4,
  copies: 0.05,
});

/** Whoever has brought most is suddenly slow: what it has begun is begun anew (the others waited for it, 1.29 and 1.64 of the bound). */
const holderBecomesSlow = (seed: number, after: number): Scenario => ({
  nodes: 5,
  seed,
  size: 24 * MIB,
  happens: (world) =>
    world.clock.after(after, () => {
      const { sentTo } = world.upstream;
      const [, most] = world.nodes
        .filter(({ id }) => id !== coordinator(world))
        .map((node) => [sentTo.get(node.id) ?? 0, node] as const)
        .reduce((one, other) => (other[0] > one[0] ? other : one));
      for (const link of [most.up, most.down]) link.rate /= 20;
      world.flows.changed();
      most.wanted = false;
    }),
  time: 1.2,
  copies: 1.05,
});

/** More nodes than may fetch, and each piece takes seconds: who has no lease waits, and is not stuck (it sent 1.10 copies). */
const slowUplink = (seed: number): Scenario => ({
  nodes: 16,
  seed,
  size: 32 * MIB,
  seconds: 32,
  time: 1.05,
  copies: 1.02,
});

for (const seed of [1, 2, 3]) {
  await t.test(`a slow uplink that many share sends one copy, seed ${seed}`, async (t) => {
    t.equal(await is(slowUplink(seed)), undefined);
  });
  await t.test(`a lease holder that becomes slow is not waited for, seed ${seed}`, async (t) => {
    for (const after of [800, 1_400])
      t.equal(await is(holderBecomesSlow(seed, after)), undefined, `after ${after} ms`);
  });
  await t.test(`a byte enters a zone once, seed ${seed}`, async (t) => {
    t.equal(await is(inThreeZones(seed, 9, 1.1)), undefined, "nine nodes");
    t.equal(await is(inThreeZones(seed, 30, 1.35)), undefined, "thirty nodes");
  });
  await t.test(`a slow node around a holder slows nobody down, seed ${seed}`, async (t) => {
    for (const nodes of [4, 8]) {
      t.equal(await is(oneIsSlow(seed, nodes, 1 / 20)), undefined, `${nodes} nodes, a twentieth of the rate`);
      t.equal(await is(oneIsSlow(seed, nodes, 1 / 4)), undefined, `${nodes} nodes, a quarter`);
    }
  });
}

/** Most of so many nodes help themselves meanwhile, and all of that would go on when it is over (it sent up to 1.79 copies). */
const silentUpstream = (seed: number): Scenario => ({
  nodes: 32,
  seed,
  seconds: 8,
  time: 3.1,
  copies: 1.4,
  happens: (world) =>
    schedule(
      world,
      { kind: "upstream stalls", at: 3_000, until: 15_000, victim: undefined },
      () => undefined,
    ),
});

for (const seed of [1, 2, 3]) {
  await t.test(`after a silence of upstream each piece is one node's again, seed ${seed}`, async (t) => {
    t.equal(await is(silentUpstream(seed)), undefined);
  });
}

const withoutRanges = (world: World): void => {
  world.upstream.faults.ranges = false;
};

/** One streams the whole; the others, whose requests for it had waited with that one's, leave it alone (7.4 copies left upstream). */
const silentWithoutRanges = (seed: number): Scenario => ({
  ...silentUpstream(seed),
  nodes: 8,
  time: 3.2,
  copies: 1.6,
  happens: (world) => {
    withoutRanges(world);
    silentUpstream(seed).happens?.(world);
  },
});

/** The next coordinator does not know that there are no ranges, and is told by who does (5.2 copies left upstream). */
const coordinatorDiesWithoutRanges = (seed: number): Scenario => ({
  nodes: 8,
  seed,
  seconds: 8,
  time: 1.6,
  copies: 1.6,
  happens: (world) => {
    withoutRanges(world);
    world.clock.after(2 * NOTICED_AFTER_MS, () => world.node(coordinator(world)).crash());
  },
});

for (const seed of [1, 2, 3]) {
  await t.test(`an upstream without ranges sends the whole once or twice, seed ${seed}`, async (t) => {
    t.equal(await is(silentWithoutRanges(seed)), undefined, "it is silent for a while");
    t.equal(await is(coordinatorDiesWithoutRanges(seed)), undefined, "the coordinator dies");
  });
}

/** Four times as much would come as can be written. */
const slowDisks = (seed: number): Scenario => ({
  nodes: 2,
  seed,
  size: 16 * MIB,
  seconds: 2,
  diskRate: 2 * MIB,
  time: 5,
  copies: 1.1,
});

for (const seed of [1, 2, 3]) {
  await t.test(`what is made wrong on purpose is noticed, seed ${seed}`, async (t) => {
    t.equal(await is(coordinatorDies(seed)), undefined, "the coordinator dies: nothing is wrong");
    t.match(
      await is({ ...coordinatorDies(seed), changes: forgetsTheStandIn }),
      /copies left upstream|of the bound/,
      "the stand-in is forgotten",
    );
    t.equal(await is(oneFlips(seed)), undefined, "one node flips bits: nothing is wrong");
    t.match(
      await is({ ...oneFlips(seed), changes: skipsTheHashCheck }),
      /failed|wrong bytes/,
      "the hash of a piece is not checked",
    );
    t.equal(await is(holderLeaves(seed)), undefined, "a holder of a lease leaves: nothing is wrong");
    t.match(
      await keepingLeasesOfWhoLeft(() => is(holderLeaves(seed))),
      /keeps a lease/,
      "its lease is not taken back",
    );
    t.equal(await is(oneHasAll(seed)), undefined, "one node has it, all others begin: nothing is wrong");
    t.equal(await is(eachInAZone(seed)), undefined, "each in a zone of its own");
    t.match(
      await is({ ...oneHasAll(seed), changes: ordersStrictly }),
      /of the bound/,
      "pieces are asked for strictly in order",
    );
    t.equal(await is(slowDisks(seed)), undefined, "disks are slow: nothing is wrong");
    t.match(
      await withoutBackpressure(() => is(slowDisks(seed))),
      /of one body in memory/,
      "what comes does not wait for the disk",
    );
  });
}
