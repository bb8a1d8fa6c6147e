/** What can go wrong with the node that asks upstream for all, with the coordinator, with upstream: nobody waits for long. */
import t, { type Test } from "tap";
import { NotFoundError, SourceError } from "@p2p-mirror/shared";
import { pause } from "../../src/transfer/patience.ts";
import { TIMES } from "../../src/swarm/times.ts";
import { seeded } from "../swarm/rig.ts";
import { SmallCrowd, type CrowdNode, type SmallCrowdOptions } from "./small-crowd.ts";

const NODES = 8;
const UPSTREAM_MS = 100;
/** Others are waited for: as long as a lease lasts, and a little. */
const WAIT_MS = 2_500;
/** Messages, pieces, a little of everything. */
const SLACK_MS = 100;
const bytes = Buffer.from("a small object");

/** Upstream's answer to the n-th request; default: the object after `UPSTREAM_MS`. */
type Script = (request: number, nth: number) => { after?: number; error?: Error } | undefined;

async function crowdOf(
  t: Test,
  script: Script = () => undefined,
  options: Partial<SmallCrowdOptions> = {},
): Promise<SmallCrowd> {
  let requests = 0;
  const crowd: SmallCrowd = await SmallCrowd.of(t, {
    nodes: NODES,
    ...options,
    upstream: async (nth, asked, signal) => {
      const { after = UPSTREAM_MS, error } = script(requests++, nth) ?? {};
      await pause(after, crowd.clock, signal);
      if (error !== undefined) throw error;
      return asked;
    },
  });
  return crowd;
}

/** The first that asked upstream. */
function holderOf(crowd: SmallCrowd): CrowdNode {
  const [first] = crowd.requests;
  if (first === undefined) throw new Error("upstream was not asked yet");
  return crowd.node(first.nth);
}

/** All begin, or some; `fault` happens after half the time that upstream takes. Checks that all that live have it in time. */
async function pull(
  t: Test,
  crowd: SmallCrowd,
  fault: () => void,
  {
    within,
    requests,
    nodes = crowd.nodes,
  }: { within: number; requests: number; nodes?: readonly CrowdNode[] },
): Promise<void> {
  const cancel = crowd.clock.after(UPSTREAM_MS / 2, fault);
  const took = await crowd.all(bytes, nodes, within + SLACK_MS);
  cancel();
  for (const [at, { id, state }] of nodes.entries())
    if (state === "alive") t.not(took[at], undefined, `${id} has it in ${within} ms`);
  const last = Math.max(...took.map((ms) => ms ?? 0));
  t.comment(`${crowd.requests.length} requests, the last has it after ${last.toFixed(0)} ms`);
  t.ok(crowd.requests.length <= requests, `${crowd.requests.length} requests`);
}

const nothing = (): void => undefined;
/** All but the coordinator, who as its own first member would be the one that asks, too. */
const members = (crowd: SmallCrowd): CrowdNode[] =>
  crowd.nodes.filter((node) => node !== crowd.coordinatorOf(bytes));
const refused = (): Error => new SourceError("DENIED", "upstream");

await t.test("the node that asks is killed: the next one asks, a moment later", async (t) => {
  const crowd = await crowdOf(t);
  // It might come back: its lease is kept for a moment.
  const within = TIMES.settle + TIMES.comeBack + TIMES.tick + 1.5 * UPSTREAM_MS;
  const nodes = members(crowd);
  await pull(t, crowd, () => crowd.kill(holderOf(crowd)), { within, requests: 2, nodes });
});

await t.test("the node that asks falls silent", async (t) => {
  const crowd = await crowdOf(t);
  const within = WAIT_MS + UPSTREAM_MS;
  const nodes = members(crowd);
  await pull(t, crowd, () => crowd.silence(holderOf(crowd)), { within, requests: NODES, nodes });
});

await t.test("it is killed when it has it, and others have just heard so", async (t) => {
  const crowd = await crowdOf(t);
  const nodes = members(crowd);
  const cancel = crowd.clock.after(UPSTREAM_MS + 5.5, () => crowd.kill(holderOf(crowd)));
  await pull(t, crowd, nothing, { within: TIMES.settle + TIMES.tick + 2 * UPSTREAM_MS, requests: 2, nodes });
  cancel();
});

await t.test("upstream never answers the node that asks: it gets it from the others, too", async (t) => {
  const crowd = await crowdOf(t, (request) => (request === 0 ? { after: Infinity } : undefined));
  await pull(t, crowd, nothing, { within: WAIT_MS + UPSTREAM_MS, requests: NODES });
});

for (const denied of [1, 3, NODES - 1]) {
  await t.test(`upstream refuses it to the first ${denied}: they get it from who is let in`, async (t) => {
    const crowd = await crowdOf(t, (request) => (request < denied ? { error: refused() } : undefined));
    const within = Math.min(WAIT_MS, denied * UPSTREAM_MS) + UPSTREAM_MS;
    await pull(t, crowd, nothing, { within, requests: denied + 1 });
  });
}

for (const [what, error] of [
  ["refuses it to all", refused()],
  ["does not have it", new NotFoundError("BLOB_UNKNOWN", "a small object")],
  ["is down", new SourceError("UNREACHABLE", "upstream")],
] as const) {
  await t.test(`upstream ${what}: it fails, in bounded time, and each has asked`, async (t) => {
    const crowd = await crowdOf(t, () => ({ error }));
    const ended: number[] = [];
    for (const { nth } of crowd.nodes) crowd.get(nth, bytes).catch(() => ended.push(crowd.now));
    t.ok(await crowd.clock.run(WAIT_MS + UPSTREAM_MS + SLACK_MS, () => ended.length === NODES));
    t.comment(`the last gave up after ${ended.at(-1)?.toFixed(0)} ms`);
    t.same(new Set(crowd.requests.map(({ nth }) => nth)).size, NODES);
    t.equal(crowd.requests.length, NODES, "nobody twice");
  });
}

await t.test("a lone node that is refused declines at once", async (t) => {
  const crowd = await crowdOf(t, () => ({ error: refused() }), { nodes: 1 });
  await t.rejects(Promise.all([crowd.get(0, bytes), crowd.clock.run(UPSTREAM_MS)]), NotFoundError);
  t.equal(crowd.now, UPSTREAM_MS);
});

await t.test(
  "the node that asked gives wrong bytes: it is not believed, and the next one asks",
  async (t) => {
    let holder: number | undefined;
    const crowd = await crowdOf(t, () => undefined, {
      onTheWay: (from, _to, sent) => ((holder ??= from) === from ? Buffer.from("another object") : sent),
    });
    await pull(t, crowd, nothing, { within: 3 * UPSTREAM_MS, requests: 2 });
  },
);

for (const [what, end] of [
  ["killed", (crowd: SmallCrowd, node: CrowdNode) => crowd.kill(node)],
  ["silent", (crowd: SmallCrowd, node: CrowdNode) => crowd.silence(node)],
] as const) {
  await t.test(`the coordinator is ${what} before they begin`, async (t) => {
    const crowd = await crowdOf(t);
    end(crowd, crowd.coordinatorOf(bytes));
    const within = (what === "killed" ? 0 : 1_000) + 2 * UPSTREAM_MS;
    const nodes = crowd.nodes.filter(({ state }) => state === "alive");
    await pull(t, crowd, nothing, { within, requests: 2, nodes });
  });

  await t.test(`the coordinator is ${what} while it is fetched`, async (t) => {
    const crowd = await crowdOf(t);
    const coordinator = crowd.coordinatorOf(bytes);
    const within = (what === "killed" ? TIMES.goBack + 500 : WAIT_MS) + UPSTREAM_MS;
    await pull(t, crowd, () => end(crowd, coordinator), { within, requests: NODES });
  });

  await t.test(`the coordinator and who asks are ${what} while it is fetched`, async (t) => {
    const crowd = await crowdOf(t);
    const fault = (): void => {
      const holder = holderOf(crowd);
      end(crowd, crowd.coordinatorOf(bytes));
      if (holder.state === "alive") end(crowd, holder);
    };
    await pull(t, crowd, fault, { within: WAIT_MS + UPSTREAM_MS, requests: NODES });
  });
}

await t.test("the network falls in two halves while it is fetched", async (t) => {
  const crowd = await crowdOf(t);
  const half = (id: string): boolean => Number(id.slice(4)) < NODES / 2;
  const fault = (): void => crowd.network.part((a, b) => half(a) !== half(b));
  await pull(t, crowd, fault, { within: WAIT_MS + UPSTREAM_MS, requests: NODES });
});

await t.test("nobody can store it: it goes round from memory", async (t) => {
  const crowd = await crowdOf(t, () => undefined, { stores: () => false });
  await pull(t, crowd, nothing, { within: UPSTREAM_MS, requests: 1 });
});

await t.test("a lone node that is limited for longer than anybody waits declines at once", async (t) => {
  const retryAfterMs = 3_600_000;
  const error = new SourceError("RATE_LIMITED", "upstream", { retryAfterMs });
  const crowd = await crowdOf(t, () => ({ error }), { nodes: 1 });
  t.same(await crowd.all(bytes, crowd.nodes), [undefined]);
  t.equal(crowd.requests.length, 1);
  t.ok(crowd.now <= UPSTREAM_MS + 1_000 + SLACK_MS, `${crowd.now} ms: no longer than a lookup may take`);
});

await t.test("a rate limit holds all up, and one asks again", async (t) => {
  const limit = new SourceError("RATE_LIMITED", "upstream", { retryAfterMs: 3_000 });
  const crowd = await crowdOf(t, (request) => (request === 0 ? { error: limit } : undefined));
  await pull(t, crowd, nothing, { within: UPSTREAM_MS + 3_000 + 2 * UPSTREAM_MS + 250, requests: 3 });
});

await t.test("a wait in vain is not repeated for each object of an image", async (t) => {
  const crowd = await crowdOf(t);
  const [reader] = crowd.nodes;
  if (reader === undefined) throw new TypeError("eight");
  // They are known to all, and never answer: a network that is cut.
  for (const node of crowd.nodes.slice(1)) crowd.silence(node);
  let waited = 0;
  for (let nth = 0; nth < 20; nth += 1) {
    const [took] = await crowd.all(Buffer.from(`object ${nth}`), [reader], 5_000);
    waited += (took ?? Infinity) - UPSTREAM_MS;
  }
  t.comment(`20 objects one after the other: ${waited.toFixed(0)} ms of waiting`);
  t.ok(waited <= 1_300 + 20 * 250);
});

await t.test("random faults, many times: who lives has it in time", async (t) => {
  const latest: number[] = [];
  let requests = 0;
  const runs = 60;
  for (let seed = 1; seed <= runs; seed += 1) {
    const random = seeded(seed);
    const stalls = Math.floor(3 * random());
    const crowd = await crowdOf(t, (request) => (request < stalls ? { after: Infinity } : undefined), {
      seed,
    });
    const cancels = [1, 2].map(() =>
      crowd.clock.after(150 * random(), () => {
        const node = crowd.node(Math.floor(NODES * random()));
        if (random() < 0.5) crowd.kill(node);
        else crowd.silence(node);
      }),
    );
    const took = await crowd.all(bytes, crowd.nodes, 10_000);
    for (const cancel of cancels) cancel();
    const alive = crowd.nodes.filter(({ state }) => state === "alive");
    const last = Math.max(...alive.map(({ nth }) => took[nth] ?? Infinity));
    if (last > WAIT_MS + 2 * UPSTREAM_MS) t.comment(`seed ${seed}: ${last.toFixed(0)} ms`);
    latest.push(last);
    requests += crowd.requests.length;
    await crowd.close();
  }
  latest.sort((a, b) => a - b);
  const at = (share: number): string => (latest[Math.floor(share * (latest.length - 1))] ?? NaN).toFixed(0);
  t.comment(`last node, ms: median ${at(0.5)}, 95 % ${at(0.95)}, most ${at(1)}; ${requests / runs} requests`);
  t.ok((latest.at(-1) ?? Infinity) <= WAIT_MS + 2_000 + UPSTREAM_MS);
});
