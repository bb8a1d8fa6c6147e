import t from "tap";
import { systemClock } from "../src/clock.ts";

await t.test("a date that jumps changes no duration, and is told as it is", async (t) => {
  const { now } = Date;
  t.teardown(() => {
    Date.now = now;
  });
  const before = systemClock.now();
  for (const jump of [-3_600_000, 3_600_000]) {
    Date.now = () => now() + jump;
    const passed = systemClock.now() - before;
    t.ok(passed >= 0 && passed < 60_000, `${passed} ms passed when the date jumped by ${jump} ms`);
    t.ok(Math.abs(systemClock.date() - now() - jump) < 60_000);
  }
});
