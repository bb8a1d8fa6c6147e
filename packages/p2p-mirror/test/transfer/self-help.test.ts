/** When a member of a swarm helps itself, and for how long it waits for others. */
import { digestOf, silentLogger, VirtualClock } from "@p2p-mirror/shared";
import t from "tap";
import { TIMES } from "../../src/swarm/times.ts";
import { SelfHelp, type OwnWork, type SwarmAtWork } from "../../src/transfer/self-help.ts";

const NOBODY: SwarmAtWork = {
  active: 0,
  due: false,
  pausedMs: 0,
  takesTurns: false,
  waitsForOthers: false,
  received: 0,
};
const NOTHING: OwnWork = { received: 0, active: 0, unranged: false };
const STUCK_MS = 2_000;
const LONGEST_WAIT_MS = 120_000;
const MIB = 1024 * 1024;

/** Looks at once, and whenever it is told to look again, as a flight does. */
function setup(swarm: SwarmAtWork = NOBODY, own: OwnWork = NOTHING) {
  const clock = new VirtualClock();
  const state = { swarm, own };
  const due: number[] = [];
  const look = (): boolean => {
    const is = help.isDue(state.swarm, state.own);
    if (is) due.push(clock.now());
    return is;
  };
  const help = new SelfHelp(
    { digest: digestOf(Buffer.from("blob")) },
    { clock, logger: silentLogger(), changed: () => void look() },
  );
  look();
  return { clock, state, help, due, look };
}

await t.test("nobody does anything: after a while this node helps itself, until others do", async (t) => {
  const { clock, state, help, due, look } = setup();
  await clock.run(STUCK_MS - 1);
  t.same(due, []);
  await clock.run(1);
  t.same(due, [STUCK_MS], "it looked by itself");
  await clock.run(10_000);
  state.own = { received: MIB, active: 1, unranged: false };
  t.ok(look(), "piece after piece");
  state.swarm = { ...NOBODY, active: 1 };
  t.notOk(look(), "others do something");
  state.swarm = NOBODY;
  state.own = { received: MIB, active: 0, unranged: false };
  t.notOk(look(), "which they may again");
  await clock.run(STUCK_MS);
  t.same(due.at(-1), 12_000 + STUCK_MS);
  help.close();
  t.equal(clock.pending, 0);
});

const BUSY: Readonly<Record<string, Partial<SwarmAtWork>>> = {
  "requests are under way": { active: 1 },
  "this node is to bring something": { due: true },
  "upstream wants to be left alone": { pausedMs: 500 },
  "it is another node's turn": { takesTurns: true },
  "others bring something": { waitsForOthers: true },
};

for (const [what, busy] of Object.entries(BUSY)) {
  await t.test(`${what}: it does not`, async (t) => {
    const { clock, state, help, due, look } = setup({ ...NOBODY, ...busy });
    await clock.run(LONGEST_WAIT_MS / 2);
    look();
    t.equal(help.waits, busy.waitsForOthers === true);
    state.swarm = NOBODY;
    look();
    await clock.run(STUCK_MS - 1);
    t.same(due, []);
    await clock.run(1);
    t.same(due, [LONGEST_WAIT_MS / 2 + STUCK_MS], "a while after they have ended");
    help.close();
  });
}

await t.test("bytes that come otherwise are as good", async (t) => {
  const { clock, state, help, due, look } = setup(NOBODY, { ...NOTHING, active: 1 });
  await clock.run(5_000);
  state.own = { ...NOTHING, received: MIB };
  t.notOk(look());
  t.notOk(look(), "nothing has come since");
  await clock.run(STUCK_MS - 1);
  t.same(due, []);
  await clock.run(1);
  t.same(due, [5_000 + STUCK_MS]);
  help.close();
});

await t.test("without ranges, whoever streams the whole loses the lease first", async (t) => {
  const { clock, help, due } = setup(NOBODY, { ...NOTHING, unranged: true });
  await clock.run(TIMES.stalled - 1);
  t.same(due, []);
  await clock.run(1);
  t.same(due, [TIMES.stalled]);
  help.close();
});

await t.test("it waits for others for two minutes since it got anything of theirs", async (t) => {
  const { clock, state, help, due, look } = setup({ ...NOBODY, waitsForOthers: true });
  await clock.run(100_000);
  state.swarm = { ...state.swarm, received: MIB };
  t.notOk(look());
  await clock.run(LONGEST_WAIT_MS - 1);
  t.notOk(look());
  t.ok(help.waits);
  await clock.run(1);
  t.notOk(look(), "they may have ended in this moment");
  t.notOk(help.waits);
  await clock.run(STUCK_MS);
  t.same(due, [100_000 + LONGEST_WAIT_MS - 1 + STUCK_MS]);
  help.close();
});

await t.test("whoever has waited in vain does not again, however much it gets by itself", async (t) => {
  const { clock, state, help, look } = setup({ ...NOBODY, waitsForOthers: true });
  await clock.run(LONGEST_WAIT_MS);
  look();
  await clock.run(STUCK_MS);
  for (const received of [1, 2, 3]) {
    state.own = { ...NOTHING, received: received * MIB };
    t.ok(look(), `${received} MiB`);
    t.notOk(help.waits);
    await clock.run(1_000);
  }
  state.swarm = { ...state.swarm, received: MIB };
  t.notOk(look(), "until something comes from others");
  t.ok(help.waits);
  help.close();
});

await t.test("who finds out about ranges by helping itself waits as long, too", async (t) => {
  const { clock, state, help, due, look } = setup();
  await clock.run(STUCK_MS);
  t.same(due, [STUCK_MS]);
  help.end();
  state.own = { ...NOTHING, unranged: true };
  t.notOk(look());
  await clock.run(TIMES.stalled - STUCK_MS);
  t.same(due, [STUCK_MS, TIMES.stalled]);
  help.close();
});
