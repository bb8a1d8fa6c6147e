import { once } from "node:events";
import t from "tap";
import { Debounced } from "../../src/store/containerd/debounced.ts";
import { Rerun } from "../../src/store/containerd/rerun.ts";

await t.test("who asks during a run gets the next one, shared; a failed run does not block it", async (t) => {
  const ends: PromiseWithResolvers<void>[] = [];
  const rerun = new Rerun(() => {
    const end = Promise.withResolvers<void>();
    ends.push(end);
    return end.promise;
  });
  const first = rerun.run();
  const second = rerun.run();
  t.equal(rerun.run(), second);
  t.equal(ends.length, 1);
  ends[0]?.reject(new Error("failed"));
  await t.rejects(first, { message: "failed" });
  await new Promise((resolve) => setImmediate(resolve));
  t.equal(ends.length, 2, "the second run began after the first failed");
  const third = rerun.run();
  t.not(third, second);
  ends[1]?.resolve();
  await second;
  await new Promise((resolve) => setImmediate(resolve));
  const idle = rerun.idle();
  ends[2]?.reject(new Error("again"));
  await t.rejects(third, { message: "again" });
  await idle;
  t.equal(ends.length, 3);
});

await t.test("a burst runs once, and an endless one runs all the same", async (t) => {
  const ran = new EventTarget();
  let runs = 0;
  const debounced = new Debounced({ quietMs: 30, mostMs: 120 }, () => {
    runs += 1;
    ran.dispatchEvent(new Event("run"));
  });
  debounced.request();
  debounced.request();
  await once(ran, "run");
  t.equal(runs, 1);
  const start = performance.now();
  const endless = setInterval(() => debounced.request(), 5);
  debounced.request();
  await once(ran, "run");
  clearInterval(endless);
  t.ok(performance.now() - start >= 100, "no run before the most it may wait");
  debounced.request();
  debounced.close();
  debounced.request();
  await new Promise((resolve) => setTimeout(resolve, 50));
  t.equal(runs, 2, "a closed one never runs");
});
