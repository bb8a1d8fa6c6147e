import { getEventListeners } from "node:events";
import t from "tap";
import { linkSignal, raceSignal } from "@p2p-mirror/shared";

const expired = async (linked: { signal: AbortSignal; release(): void }): Promise<unknown> => {
  await new Promise<void>((resolve) =>
    linked.signal.addEventListener("abort", () => resolve(), { once: true }),
  );
  linked.release();
  return linked.signal.reason;
};

const listeners = (signal: AbortSignal): number => getEventListeners(signal, "abort").length;

await t.test("aborts with any of its parents, and with their reason", async (t) => {
  const parents = [new AbortController(), new AbortController()];
  const linked = linkSignal([undefined, ...parents.map(({ signal }) => signal)]);
  t.notOk(linked.signal.aborted);
  const reason = new Error("the second");
  parents[1]?.abort(reason);
  t.equal(linked.signal.reason, reason);
  linked.release();
});

await t.test(
  "a parent that is aborted already aborts it at once, and no listener stays anywhere",
  async (t) => {
    const living = new AbortController();
    const linked = linkSignal([living.signal, AbortSignal.abort("over")], 60_000);
    t.ok(linked.signal.aborted);
    t.equal(linked.signal.reason, "over");
    linked.release();
    t.equal(listeners(living.signal), 0);
  },
);

await t.test("aborting it leaves its parents alone", async (t) => {
  const parent = new AbortController();
  const linked = linkSignal([parent.signal]);
  linked.abort("mine");
  t.equal(linked.signal.reason, "mine");
  t.notOk(parent.signal.aborted);
  linked.release();
});

await t.test("a released one hears nothing more of its parent, nor of its deadline", async (t) => {
  const parent = new AbortController();
  const linked = linkSignal([parent.signal], 1);
  linked.release();
  parent.abort();
  const later = linkSignal([], 20);
  await new Promise<void>((resolve) =>
    later.signal.addEventListener("abort", () => resolve(), { once: true }),
  );
  t.notOk(linked.signal.aborted);
});

await t.test("a long-lived parent carries no trace of ten thousand operations", async (t) => {
  const parent = new AbortController();
  for (let round = 0; round < 10_000; round++) {
    using linked = linkSignal([parent.signal], 60_000);
    if (linked.signal.aborted) t.fail("aborted by nobody");
  }
  t.equal(listeners(parent.signal), 0);
});

await t.test("the deadline's reason is a TimeoutError, or what the caller makes", async (t) => {
  t.match(await expired(linkSignal([], 1)), { name: "TimeoutError", message: "timed out after 1 ms" });
  t.match(await expired(linkSignal([], 1, () => new Error("no first byte"))), { message: "no first byte" });
});

await t.test("raceSignal gives the result, or the reason as soon as the signal aborts", async (t) => {
  const controller = new AbortController();
  t.equal(await raceSignal(Promise.resolve(5), controller.signal), 5);
  t.equal(await raceSignal(Promise.resolve(6), undefined), 6);
  await t.rejects(raceSignal(Promise.reject(new Error("own")), controller.signal), { message: "own" });
  const never = new Promise<never>(() => undefined);
  const racing = raceSignal(never, controller.signal);
  controller.abort(new Error("gone"));
  await t.rejects(racing, { message: "gone" });
  await t.rejects(raceSignal(Promise.resolve(5), controller.signal), { message: "gone" }, "aborted before");
  t.equal(listeners(controller.signal), 0);
});

await t.test("a reason that is no Error comes out as an AbortError", async (t) => {
  const controller = new AbortController();
  const racing = raceSignal(new Promise<never>(() => undefined), controller.signal);
  controller.abort("text");
  await t.rejects(racing, { name: "AbortError" });
});
