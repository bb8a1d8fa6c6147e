import { SourceError } from "@p2p-mirror/shared";
import t, { type Test } from "tap";
import { Gate, type Outcome } from "../../src/upstream/gate.ts";

const OPTIONS = { failures: 3, refusedMs: 1_000, openMs: 3_000, maxOpenMs: 15_000 };

interface Scene {
  readonly gate: Gate;
  /** One request. */
  readonly ask: (outcome: Outcome) => void;
  /** Milliseconds after which the gate lets a request through that it does not let through now. */
  readonly opensAfter: (t: Test) => number;
}

function scene(): Scene {
  let now = 0;
  const gate = new Gate("a registry", OPTIONS, () => now);
  return {
    gate,
    ask: (outcome) => {
      now += 1;
      const pass = gate.enter();
      now += 1;
      pass.done(outcome);
    },
    opensAfter: (t) => {
      t.throws(() => gate.enter(), { code: "UNREACHABLE" });
      const { waitMs } = gate.health;
      now += waitMs - 1;
      t.throws(() => gate.enter(), SourceError, "not a moment earlier");
      now += 1;
      return waitMs;
    },
  };
}

const trip = ({ ask }: Scene, outcome: Outcome): void => {
  for (let n = 0; n < (outcome === "silent" ? 1 : OPTIONS.failures); n += 1) ask(outcome);
};

void t.test("a host that refuses is tried every second, however long it is away", async (t) => {
  const it = scene();
  trip(it, "failed");
  for (let n = 0; n < 10; n += 1) {
    t.equal(it.opensAfter(t), OPTIONS.refusedMs);
    it.ask("failed");
  }
  t.equal(it.opensAfter(t), OPTIONS.refusedMs);
  it.ask("answered");
  t.equal(it.gate.reachable, true);
});

void t.test(
  "a host that is silent is tried less and less often, since each try costs its deadline",
  async (t) => {
    const it = scene();
    trip(it, "silent");
    const waits = [0, 1, 2, 3, 4].map(() => {
      const wait = it.opensAfter(t);
      it.ask("silent");
      return wait;
    });
    t.same(waits, [3_000, 6_000, 12_000, 15_000, 15_000]);
    t.equal(it.opensAfter(t), OPTIONS.maxOpenMs);
    it.ask("failed");
    t.equal(it.opensAfter(t), OPTIONS.refusedMs, "it says no now: it is coming back");
    it.ask("answered");
    trip(it, "silent");
    t.equal(it.opensAfter(t), OPTIONS.openMs, "what was before it answered is forgotten");
  },
);

void t.test("one request at a time tries", async (t) => {
  const it = scene();
  trip(it, "failed");
  it.opensAfter(t);
  const trying = it.gate.enter();
  t.throws(() => it.gate.enter(), { code: "UNREACHABLE" }, "another one waits for how that ends");
  trying.done("abandoned");
  it.ask("answered");
  t.equal(it.gate.health.state, "ok");
});
