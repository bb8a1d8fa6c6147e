import { appendFile, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import t from "tap";
import { parseHostsFile } from "../../src/hosts/hosts-file.ts";
import { hostsStatus, installHosts, ITSELF, removeHosts, type HostsOptions } from "../../src/hosts/hosts.ts";
import { LAYOUTS, layoutsLeftAlone } from "./layouts.ts";
import { layOut, treeOf } from "./tree.ts";

const mirror = "http://127.0.0.1:24220";

const optionsFor = (hostsDir: string, more: Partial<HostsOptions> = {}): HostsOptions => ({
  hostsDir,
  mirror,
  registries: [],
  ...more,
});

await t.test("every layout: installed, twice the same, removed without a trace", async (t) => {
  const layouts = [...LAYOUTS, ...layoutsLeftAlone("left.example.test", "https://mirror.example.test")];
  t.ok(layouts.length >= 40, `${layouts.length} layouts`);
  for (const layout of layouts) {
    await t.test(layout.name, async (t) => {
      const certs = t.testdir();
      await layOut(certs, layout);
      const before = await treeOf(certs);
      const left = layout.leftAlone ?? [];

      const done = await installHosts(optionsFor(certs));
      t.same(
        done.filter(({ outcome }) => outcome === "left alone").map(({ directory }) => directory),
        left,
        "what is left alone is said",
      );
      const installed = await treeOf(certs);
      for (const path of Object.keys(before)) t.ok(path in installed, `${path} is still there`);
      for (const one of await hostsStatus(optionsFor(certs))) {
        if (left.includes(one.directory)) continue;
        t.match(one, { inForce: true, managed: true, asks: [mirror] }, one.directory);
        const file = join(certs, one.directory, "hosts.toml");
        const found = parseHostsFile(await readFile(file, "utf8"));
        const was = before[`${one.directory}/hosts.toml`]?.replace(/^file \S+ \S+ /, "");
        const old = parseHostsFile(
          was?.startsWith("link ") === false ? was : (layout.files?.["kept/real.toml"]?.toString() ?? ""),
        );
        if (was !== undefined)
          t.strictSame([...found.hosts].slice(1), [...old.hosts], "the other hosts are as before");
      }

      const again = await installHosts(optionsFor(certs));
      t.notOk(
        again.some(({ outcome }) => outcome === "installed"),
        "a second time changes nothing",
      );
      t.strictSame(await treeOf(certs), installed);

      await removeHosts(optionsFor(certs));
      t.strictSame(await treeOf(certs), before, "all bytes, modes, owners and links as before");
    });
  }
});

await t.test("certificates beside no hosts.toml stay in force", async (t) => {
  const certs = t.testdir({
    "reg.test": { "ca.crt": "ca", "a.cert": "cert", "a.key": "key", "both.cert": "both" },
  });
  await installHosts(optionsFor(certs));
  const { root } = parseHostsFile(await readFile(join(certs, "reg.test/hosts.toml"), "utf8"));
  t.same(root, {
    ca: ["ca.crt"],
    client: [
      ["a.cert", "a.key"],
      ["both.cert", "both.cert"],
    ],
  });
  await writeFile(join(certs, "reg.test/new.crt"), "ca");
  await installHosts(optionsFor(certs));
  const later = parseHostsFile(await readFile(join(certs, "reg.test/hosts.toml"), "utf8"));
  t.same(later.root.ca, ["ca.crt", "new.crt"], "also those that come later, by the next install");
});

await t.test("what others add to our file stays when we go", async (t) => {
  const certs = t.testdir();
  await installHosts(optionsFor(certs));
  const file = join(certs, "_default/hosts.toml");
  const theirs = '[host."https://later.example"]\n';
  await appendFile(file, theirs);
  t.match(
    await installHosts(optionsFor(certs)),
    [{ outcome: "installed" }],
    "the file is theirs from now on",
  );
  t.match(await installHosts(optionsFor(certs)), [{ outcome: "unchanged" }]);
  await removeHosts(optionsFor(certs));
  t.equal(await readFile(file, "utf8"), theirs);
});

await t.test("a mirror that moved: the block names the new one", async (t) => {
  const certs = t.testdir({ "a.test": { "hosts.toml": 'server = "https://a.test"' } });
  await installHosts(optionsFor(certs));
  await installHosts(optionsFor(certs, { mirror: "http://127.0.0.1:5555" }));
  const status = await hostsStatus(optionsFor(certs, { mirror: "http://127.0.0.1:5555" }));
  t.same(
    status.map(({ asks }) => asks),
    [
      ["http://127.0.0.1:5555", ITSELF],
      ["http://127.0.0.1:5555", "https://a.test"],
    ],
  );
  await removeHosts(optionsFor(certs));
  t.equal(await readFile(join(certs, "a.test/hosts.toml"), "utf8"), 'server = "https://a.test"');
});

await t.test("a mirror that was written down by hand", async (t) => {
  const byHand = `[host."${mirror}"]\n`;
  const second = `[host."https://other.test"]\n${byHand}`;
  const certs = t.testdir({ "a.test": { "hosts.toml": byHand }, "b.test": { "hosts.toml": second } });
  t.match(await installHosts(optionsFor(certs)), [
    { directory: "_default", outcome: "installed" },
    { directory: "a.test", outcome: "unchanged" },
    { directory: "b.test", outcome: "left alone", reason: "https://other.test is asked before it" },
  ]);
  t.match(await hostsStatus(optionsFor(certs, { registries: ["a.test"] })), [
    { inForce: true, managed: false },
  ]);
});

await t.test("who reads while it is written finds the old file or the new one, whole", async (t) => {
  const before = `server = "https://a.test"\n# ${"x".repeat(200_000)}\n[host."https://m.test"]\n`;
  const certs = t.testdir({ "a.test": { "hosts.toml": before } });
  const file = join(certs, "a.test/hosts.toml");
  const options = optionsFor(certs, { registries: ["a.test"] });
  await installHosts(options);
  const whole = [before, await readFile(file, "utf8")];
  const written = new AbortController();
  const seen = new Map<string, number>();
  const reading = async (): Promise<void> => {
    while (!written.signal.aborted) {
      const text = await readFile(file, "utf8");
      seen.set(text, (seen.get(text) ?? 0) + 1);
    }
  };
  const readers = Promise.all([reading(), reading()]);
  for (let round = 0; round < 50; round += 1) {
    await removeHosts(options);
    await installHosts(options);
  }
  written.abort();
  await readers;
  t.same(
    [...seen.keys()].filter((text) => !whole.includes(text)).map((text) => text.length),
    [],
    "nothing else was ever there",
  );
  t.equal(seen.size, 2, `both were: ${[...seen.values()].join(" and ")} times`);
  t.same(await readdir(join(certs, "a.test")), ["hosts.toml"], "and nothing is beside it");
});

await t.test("half a block is nobody's: left alone, and said", async (t) => {
  const certs = t.testdir({ "a.test": { "hosts.toml": "" } });
  const file = join(certs, "a.test/hosts.toml");
  await installHosts(optionsFor(certs));
  const whole = await readFile(file, "utf8");
  for (const damaged of [whole.replace(/^# <<<.*\n/m, ""), whole.replace(/^# >>>.*\n/m, ""), whole + whole]) {
    await writeFile(file, damaged);
    t.match(await installHosts(optionsFor(certs, { registries: ["a.test"] })), [
      { outcome: "left alone", reason: "block" },
    ]);
    t.match(await removeHosts(optionsFor(certs, { registries: ["a.test"] })), [{ outcome: "left alone" }]);
    t.equal(await readFile(file, "utf8"), damaged);
  }
});

await t.test("chosen registries", async (t) => {
  const certs = t.testdir({ "a.test": { "hosts.toml": 'server = "https://a.test"\n' } });
  await installHosts(optionsFor(certs, { registries: ["a.test", "b.test:5000"] }));
  t.same(Object.keys(await treeOf(certs)), [
    "a.test",
    "a.test/hosts.toml",
    "b.test_5000_",
    "b.test_5000_/hosts.toml",
  ]);
  await installHosts(optionsFor(certs, { without: new Set(["a.test"]) }));
  t.match(await hostsStatus(optionsFor(certs)), [
    { directory: "_default", inForce: true },
    { directory: "a.test", inForce: false },
    { directory: "b.test_5000_", inForce: true },
  ]);
  await rm(join(certs, "b.test_5000_"), { recursive: true });
  await writeFile(join(certs, "_default/hosts.toml"), '[host."https://everything.test"]\n');
  t.match(
    await installHosts(optionsFor(certs, { registries: ["b.test:5000"] })),
    [{ outcome: "left alone", reason: "_default/hosts.toml out of force" }],
    "a directory of its own would shadow what somebody has set for all",
  );
});

await t.test("a directory that cannot be written to does not keep the others from it", async (t) => {
  // Root writes everywhere, but not into a file.
  const certs = t.testdir({ _default: "", "a.test": { "hosts.toml": "" } });
  t.match(await installHosts(optionsFor(certs)), [
    { directory: "_default", outcome: "left alone", reason: /EEXIST|ENOTDIR/ },
    { directory: "a.test", outcome: "installed" },
  ]);
});
