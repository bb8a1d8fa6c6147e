import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Registry } from "prom-client";
import t from "tap";
import { createLogger } from "@p2p-mirror/shared";
import { HostsKeeper } from "../../src/hosts/hosts-keeper.ts";
import { installHosts } from "../../src/hosts/hosts.ts";
import { without } from "../../src/transfer/mirror-access.ts";
import { manualClock } from "../manual-clock.ts";

const mirror = "http://127.0.0.1:24220";

await t.test("what others overwrite is repaired, logged and counted", async (t) => {
  const certs = t.testdir({ "a.test": { "hosts.toml": 'server = "https://a.test"\n' } });
  const lines: string[] = [];
  const logger = createLogger("info", { write: (line) => void lines.push(line) });
  const registry = new Registry();
  const clock = manualClock();
  const options = { hostsDir: certs, mirror, registries: [], without: new Set(["b.test"]) };
  let reads = 0;
  const others = { read: async () => void (reads += 1) };
  const keeper = new HostsKeeper(options, { clock, logger, registry, others });
  await keeper.start();
  t.equal(lines.filter((line) => line.includes("names the mirror first")).length, 2);

  const metric = async (name: string): Promise<number> => {
    const found = await registry.getSingleMetric(name)?.get();
    return found?.values[0]?.value ?? Number.NaN;
  };
  t.equal(reads, 1);
  await clock.tick();
  t.equal(reads, 2, "what others have is read with each look");
  t.equal(await metric("p2p_mirror_hosts_repairs_total"), 0, "nothing changed");

  const file = join(certs, "a.test/hosts.toml");
  await writeFile(file, 'server = "https://new.a.test"\n');
  await rm(join(certs, "_default"), { recursive: true });
  await clock.tick();
  t.match(await readFile(file, "utf8"), /^server = "https:\/\/new\.a\.test"\n# >>> p2p-mirror/);
  t.match(await readFile(join(certs, "_default/hosts.toml"), "utf8"), mirror);
  t.equal(await metric("p2p_mirror_hosts_repairs_total"), 2);
  t.equal(lines.filter((line) => line.includes("changed by others")).length, 2);

  await writeFile(file, "broken");
  await clock.tick();
  await clock.tick();
  t.equal(await readFile(file, "utf8"), "broken");
  t.equal(await metric("p2p_mirror_hosts_left_alone"), 1);
  t.equal(lines.filter((line) => line.includes("left alone")).length, 1, "said once");
  await keeper.close();
});

await t.test("what is left out is kept free of the mirror, too", async (t) => {
  const text = 'server = "https://b.test"\n';
  const certs = t.testdir({
    "b.test": { "hosts.toml": text },
    "gone.test": t.fixture("symlink", "nowhere"),
  });
  const file = join(certs, "b.test/hosts.toml");
  await installHosts({ hostsDir: certs, mirror, registries: ["b.test"] });
  const lines: string[] = [];
  const logger = createLogger("info", { write: (line) => void lines.push(line) });
  const registry = new Registry();
  const clock = manualClock();
  const without = new Set(["b.test", "gone.test"]);
  const deps = { clock, logger, registry, others: { read: async () => {} } };
  const keeper = new HostsKeeper({ hostsDir: certs, mirror, registries: [], without }, deps);
  await keeper.start();
  t.equal(await readFile(file, "utf8"), text);

  await installHosts({ hostsDir: certs, mirror, registries: ["b.test"] });
  await clock.tick();
  t.equal(await readFile(file, "utf8"), text, "also when somebody installs it while the mirror serves");
  t.match(
    lines.filter((line) => line.includes("names the mirror no more")),
    [/registries\.b\.test\.mirror is false/, /b\.test/],
  );
  const left = await registry.getSingleMetric("p2p_mirror_hosts_left_alone")?.get();
  t.equal(left?.values[0]?.value, 0, "and what cannot be read there is no trouble");
  await keeper.close();
});

await t.test("a registry that is left out is declined before anybody is asked", async (t) => {
  const asked: string[] = [];
  const access = without(new Set(["b.test"]), {
    decide: async ({ registry }) => {
      asked.push(registry);
      return "allow";
    },
  });
  const { signal } = new AbortController();
  const request = { repository: "r", authorization: undefined };
  t.equal(await access.decide({ ...request, registry: "b.test" }, { signal }), "decline");
  t.equal(await access.decide({ ...request, registry: "a.test" }, { signal }), "allow");
  t.same(asked, ["a.test"]);
});

await t.test("at the end it takes itself out again where that is wished, and only then", async (t) => {
  const before = 'server = "https://a.test"\n[host."https://m.test"]\n';
  const certs = t.testdir({ "a.test": { "hosts.toml": before } });
  const file = join(certs, "a.test/hosts.toml");
  const lines: string[] = [];
  const logger = createLogger("info", { write: (line) => void lines.push(line) });
  const keep = async (removeAtEnd: boolean, meanwhile: () => Promise<void>): Promise<void> => {
    const deps = { clock: manualClock(), logger, registry: new Registry(), others: { read: async () => {} } };
    const keeper = new HostsKeeper({ hostsDir: certs, mirror, registries: [], removeAtEnd }, deps);
    await keeper.start();
    t.match(await readFile(file, "utf8"), mirror);
    await meanwhile();
    await keeper.close();
  };
  await keep(false, async () => undefined);
  t.match(await readFile(file, "utf8"), mirror, "a restart does not touch the files");

  await keep(true, async () => undefined);
  t.equal(await readFile(file, "utf8"), before);
  await t.rejects(readFile(join(certs, "_default/hosts.toml")), { code: "ENOENT" });
  t.equal(lines.filter((line) => line.includes("as it was without the mirror")).length, 2);

  await keep(true, async () => writeFile(file, `# >>> p2p-mirror: half a block\n${before}`));
  t.match(lines.at(-1), /still names the mirror/);
});
