import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import t from "tap";
import { treeOf } from "../hosts/tree.ts";
import { run, type Outcome } from "./terminal.ts";

await t.test("install, status and remove, as tables and as JSON", async (t) => {
  const certs = t.testdir({
    "quay.io": { "hosts.toml": 'server = "https://quay.io"\n[host."https://m.example"]\n' },
  });
  const before = await run(["hosts", "status", "--hosts-dir", certs]);
  t.match(
    before.stdout,
    /_default +no +the registry itself\nquay\.io +no +https:\/\/m\.example, https:\/\/quay\.io\n/,
  );

  const installed = await run([
    "hosts",
    "install",
    "--hosts-dir",
    certs,
    "--mirror",
    "http://127.0.0.1:1234",
  ]);
  t.equal(installed.exitCode, 0);
  t.match(installed.stdout, /_default +installed\nquay\.io +installed\n/);
  t.match(
    await readFile(join(certs, "quay.io/hosts.toml"), "utf8"),
    /^\[host\."http:\/\/127\.0\.0\.1:1234"\]$/m,
  );

  const { stdout } = await run([
    "hosts",
    "status",
    "--hosts-dir",
    certs,
    "--mirror",
    "http://127.0.0.1:1234",
    "--json",
  ]);
  t.match(JSON.parse(stdout), [
    { directory: "_default", inForce: true, managed: true },
    {
      directory: "quay.io",
      inForce: true,
      asks: ["http://127.0.0.1:1234", "https://m.example", "https://quay.io"],
    },
  ]);

  const removed = await run(["hosts", "remove", "--hosts-dir", certs]);
  t.match(removed.stdout, /_default +removed\nquay\.io +removed\n/);
  t.equal((await run(["hosts", "status", "--hosts-dir", certs])).stdout, before.stdout);
});

await t.test("the mirror is where its settings say that it listens", async (t) => {
  const certs = t.testdir();
  const env = { P2P_MIRROR_REGISTRY_LISTEN: "127.0.0.1:5001" };
  await run(["hosts", "install", "--hosts-dir", certs], { env });
  t.match(await readFile(join(certs, "_default/hosts.toml"), "utf8"), 'host."http://127.0.0.1:5001"');
});

await t.test("what was left alone is exit code 1, with the reason; the rest is installed", async (t) => {
  const certs = t.testdir({ "a.test": { "hosts.toml": "server = nothing\n" } });
  const { exitCode, stdout, stderr } = await run(["hosts", "install", "--hosts-dir", certs]);
  t.equal(exitCode, 1);
  t.match(stdout, /_default +installed\na\.test +left alone +hosts\.toml is no TOML, line 1/);
  t.match(stderr, /^p2p-mirror: left alone[^\n]*a\.test\n$/);
});

await t.test("status says which files the mirror does not understand", async (t) => {
  const certs = t.testdir({ "a.test": { "hosts.toml": '[host."https://m.example"]\n  ca = "gone.crt"\n' } });
  await run(["hosts", "install", "--hosts-dir", certs]);
  const { exitCode, stdout } = await run(["hosts", "status", "--hosts-dir", certs]);
  t.equal(exitCode, 0);
  t.match(
    stdout,
    /a\.test +first +.*https:\/\/m\.example, .* \(the mirror does not: .*gone\.crt cannot be read/,
  );
});

await t.test("wrong calls change nothing", async (t) => {
  const certs = t.testdir({ file: "" });
  const calls: [string[], RegExp][] = [
    [["install"], /--hosts-dir: "" is not valid: give the directory/],
    [["install", "--hosts-dir", certs, "--mirror", "nowhere"], /--mirror: "nowhere" is not valid/],
    [["install", "--hosts-dir", certs, "--registry", "../etc"], /--registry: "\.\.\/etc" is not valid/],
    [["remove", "--hosts-dir", join(certs, "file")], /--hosts-dir: ".*file" is not valid: .*directory/],
    [["status", "--hosts-dir", join(certs, "gone")], /--hosts-dir: ".*gone" is not valid: .*directory/],
  ];
  for (const [args, expected] of calls) {
    const { exitCode, stdout, stderr } = await run(["hosts", ...args]);
    t.equal(exitCode, 2, args.join(" "));
    t.match(stderr, expected, args.join(" "));
    t.equal(stdout, "");
  }
});

await t.test("the directory is a setting, too", async (t) => {
  const certs = t.testdir();
  const env = { P2P_MIRROR_HOSTS_DIR: certs };
  t.equal((await run(["hosts", "install"], { env })).exitCode, 0);
  t.match(await readFile(join(certs, "_default/hosts.toml"), "utf8"), 'host."http://127.0.0.1:24220"');
  t.match((await run(["hosts", "remove"], { env })).stdout, /_default +removed/);
  const none = await run(["hosts", "install"]);
  t.equal(none.exitCode, 2);
  t.match(
    none.stderr,
    /^p2p-mirror: --hosts-dir: .*give the directory that containerd's config_path names\n$/,
  );
});

await t.test("as in the init container: registries that the config file leaves out", async (t) => {
  const text = 'server = "https://up.test"\n[host."https://m.test"]\n';
  const home = t.testdir({
    certs: { "a.test": { "hosts.toml": text }, "b.test_5000_": { "hosts.toml": text } },
    "config.yaml": "cache_size: 20GiB\n",
  });
  const certs = join(home, "certs");
  const config = join(home, "config.yaml");
  const env = { P2P_MIRROR_CONFIG: config, P2P_MIRROR_HOSTS_DIR: certs };
  const install = (): Promise<Outcome> => run(["hosts", "install", "--partial"], { env });
  const leaveOut = async (...registries: readonly string[]): Promise<void> => {
    const all = Object.fromEntries(registries.map((one) => [one, { mirror: false }]));
    await writeFile(config, JSON.stringify({ cache_size: "20GiB", registries: all }));
  };
  const before = await treeOf(certs);

  await leaveOut("a.test", "B.test:5000");
  const first = await install();
  t.equal(first.exitCode, 0);
  t.match(first.stdout, /a\.test +left out +registries\.a\.test\.mirror is false\nb\.test_5000_ +left out/);
  const after = await treeOf(certs);
  for (const [path, was] of Object.entries(before)) t.equal(after[path], was, `${path} is as it was`);

  await leaveOut("a.test");
  t.match((await install()).stdout, /a\.test +left out .*\nb\.test_5000_ +installed\n/);
  t.match(await readFile(join(certs, "b.test_5000_/hosts.toml"), "utf8"), "# >>> p2p-mirror");

  await leaveOut("b.test:5000");
  t.match((await install()).stdout, /a\.test +installed\nb\.test_5000_ +removed +registries\.b\.test:5000/);
  t.equal(await readFile(join(certs, "b.test_5000_/hosts.toml"), "utf8"), text, "what was ours goes");

  await writeFile(join(certs, "_default/hosts.toml"), "broken");
  await leaveOut("a.test", "b.test:5000");
  t.equal((await install()).exitCode, 1, "who is left out counts for nothing: the mirror is nowhere");

  await writeFile(config, "registries: { a.test: { mirror: perhaps } }\n");
  const wrong = await install();
  t.equal(wrong.exitCode, 2);
  t.match(wrong.stderr, /registries\.a\.test\.mirror.*give true or false\n$/);
  t.equal((await run(["hosts", "remove"], { env })).exitCode, 0, "which does not keep it from going");
});

await t.test("--partial: one file that is broken does not keep the mirror out of the others", async (t) => {
  const certs = t.testdir({ "a.test": { "hosts.toml": "broken" } });
  const install = ["hosts", "install", "--hosts-dir", certs];
  t.equal((await run(install)).exitCode, 1);
  const partial = await run([...install, "--partial"]);
  t.equal(partial.exitCode, 0);
  t.match(partial.stdout, /_default +unchanged[\s\S]*a\.test +left alone +hosts\.toml is no TOML/);

  const only = await run([...install, "--partial", "--registry", "a.test"]);
  t.equal(only.exitCode, 1, "nowhere at all");
});
