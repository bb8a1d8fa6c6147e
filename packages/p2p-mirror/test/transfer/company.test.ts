import { VirtualClock } from "@p2p-mirror/shared";
import t from "tap";
import { Company, COMPANY_MS, LONGEST_COMPANY_MS } from "../../src/transfer/company.ts";

const setup = () => {
  const clock = new VirtualClock();
  const ended: number[] = [];
  const company = new Company(clock, () => ended.push(clock.now()));
  return { clock, company, ended };
};

await t.test("until it is known who is here, somebody may come", async (t) => {
  const { clock, company, ended } = setup();
  await clock.run(10_000);
  t.ok(company.expected);
  company.here([]);
  await clock.run(COMPANY_MS - 1);
  t.ok(company.expected);
  await clock.run(1);
  t.notOk(company.expected);
  t.same(ended, [10_000 + COMPANY_MS]);
});

await t.test("each one who is new lets others follow; who is known does not", async (t) => {
  const { clock, company, ended } = setup();
  company.here([]);
  await clock.run(200);
  company.here(["a"]);
  await clock.run(200);
  company.here(["a", "b"]);
  await clock.run(200);
  t.ok(company.expected, "600 ms after the beginning");
  company.here(["b", "a"]);
  await clock.run(COMPANY_MS);
  t.same(ended, [400 + COMPANY_MS]);
  company.here(["c"]);
  t.notOk(company.expected, "over is over");
});

await t.test("not for ever", async (t) => {
  const { clock, company, ended } = setup();
  for (let nth = 0; nth < 100; nth += 1) {
    company.here([`node ${nth}`]);
    await clock.run(100);
  }
  t.same(ended, [LONGEST_COMPANY_MS]);
  t.equal(clock.pending, 0);
});

await t.test("nothing is left of one that is closed", async (t) => {
  const { clock, company, ended } = setup();
  company.here(["a"]);
  company.close();
  t.notOk(company.expected);
  t.equal(clock.pending, 0);
  t.same(ended, []);
});
