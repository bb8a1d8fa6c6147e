import { Registry } from "prom-client";
import t from "tap";
import { createLogger } from "@p2p-mirror/shared";
import { renderReport } from "../../src/cli/doctor.ts";
import { CannotTell, type Check } from "../../src/doctor/check.ts";
import { DoctorRounds } from "../../src/doctor/rounds.ts";
import { manualClock } from "../manual-clock.ts";
import { STATUS, subjectOf } from "./subject.ts";

await t.test(
  "cheap checks and what was found in every round, all of them in every tenth; what changes is said once",
  async (t) => {
    const lines: string[] = [];
    const logger = createLogger("info", { write: (line) => void lines.push(line) });
    const registry = new Registry();
    const manual = manualClock();
    const waits: number[] = [];
    const clock = {
      ...manual,
      after: (ms: number, callback: () => void) => {
        waits.push(ms);
        return manual.after(ms, callback);
      },
    };
    const made: string[] = [];
    const wrong = new Set<string>();
    const checkOf = (name: string, cheap: boolean): Check => ({
      name,
      cheap,
      find: async () => {
        made.push(name);
        if (wrong.has(`${name}?`)) throw new CannotTell("it is dark");
        return wrong.has(name) ? [{ severity: "broken", what: `${name} is wrong`, why: "w", fix: "f" }] : [];
      },
    });
    const { settings } = subjectOf({});
    const rounds = new DoctorRounds(settings, {
      status: async () => STATUS,
      clock,
      logger,
      registry,
      checks: [checkOf("cheap", true), checkOf("dear", false)],
    });
    const metric = async (check: string): Promise<number | undefined> => {
      const found = await registry.getSingleMetric("p2p_mirror_doctor_findings")?.get();
      return found?.values.find(({ labels }) => labels["check"] === check && labels["severity"] === "broken")
        ?.value;
    };
    await rounds.start();
    t.equal(rounds.report, undefined);
    wrong.add("dear").add("cheap");
    await clock.tick();
    t.same(made.splice(0), ["cheap", "dear"]);
    t.match(rounds.report?.findings, [{ check: "cheap" }, { check: "dear" }]);
    t.equal(lines.filter((line) => line.includes("has found something")).length, 2);

    wrong.delete("cheap");
    await clock.tick();
    t.same(made.splice(0), ["cheap", "dear"], "until it is gone");
    t.match(rounds.report?.findings, [{ check: "dear" }]);
    t.equal(await metric("cheap"), 0);
    t.equal(await metric("dear"), 1);
    t.equal(lines.filter((line) => line.includes("has found something")).length, 2, "nothing twice");
    t.equal(lines.filter((line) => line.includes("is gone")).length, 1);

    wrong.delete("dear");
    wrong.add("cheap?");
    await clock.tick();
    t.same(rounds.report?.skipped, [{ check: "cheap", why: "it is dark" }]);
    t.same(rounds.report?.findings, [], "mended, and said so in the next round");
    made.length = 0;
    wrong.clear();
    wrong.add("dear");
    for (let round = 3; round < 10; round += 1) await clock.tick();
    t.same(new Set(made.splice(0)), new Set(["cheap"]));
    await clock.tick();
    t.same(made, ["cheap", "dear"], "the tenth after the first");
    t.match(rounds.report?.findings, [{ check: "dear" }]);
    wrong.clear();
    await clock.tick();
    made.length = 0;
    waits.length = 0;
    rounds.soon();
    rounds.soon();
    t.same(waits, [10_000], "sooner, and not put off again and again");
    await clock.tick();
    t.same(made.splice(0), ["cheap", "dear"], "containerd came back");
    await clock.tick();
    t.same(made, ["cheap"], "and goes on as ever");
    await rounds.close();
    rounds.soon();
  },
);

await t.test("the report as text: what is broken first, then warnings, then what could not be seen", (t) => {
  const finding = { what: "a", why: "b", fix: "c" };
  const text = renderReport({
    checkedAt: "",
    findings: [
      { check: "two", severity: "warning", ...finding },
      { check: "one", severity: "broken", ...finding },
    ],
    skipped: [{ check: "three", why: "it is dark" }],
  });
  t.equal(
    text,
    "broken: a [one]\n  why it matters: b\n  what to do: c\n\nwarning: a [two]\n  why it matters: b\n  what to do: c\n\nnot checked: three (it is dark)\n1 broken, 1 warnings\n",
  );
  t.match(renderReport({ checkedAt: "", findings: [], skipped: [] }), /nothing wrong was found/);
  t.end();
});
