import t from "tap";
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
