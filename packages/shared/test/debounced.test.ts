import { once } from "node:events";
import t from "tap";
import { Debounced } from "@p2p-mirror/shared";

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
