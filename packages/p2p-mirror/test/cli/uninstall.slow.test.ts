import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { silentLogger } from "@p2p-mirror/shared";
import t from "tap";
import { removeData } from "../../src/daemon-data.ts";
import { IndexDb } from "../../src/store/cache/index-db.ts";
import { loneMirror, readyUrls, startChild } from "./child.ts";
import { run } from "./terminal.ts";

const loadRemoveData = async (): Promise<typeof removeData> => removeData;

await t.test("a node is as it was: what a mirror has written, and nothing else, is gone", async (t) => {
  const before = 'server = "https://a.test"\n';
  const dir = t.testdir({ certs: { "a.test": { "hosts.toml": before } } });
  const [certs, data] = [join(dir, "certs"), join(dir, "data")];
  const mirror = startChild(t, [...loneMirror(data), "--hosts-dir", certs]);
  await readyUrls(mirror);
  t.match(await readFile(join(certs, "a.test/hosts.toml"), "utf8"), "127.0.0.1");
  const uninstall = ["uninstall", "--hosts-dir", certs, "--data-dir", data];

  const early = await run(uninstall, { loadRemoveData });
  t.equal(early.exitCode, 1);
  t.match(early.stderr, /another process uses the cache directory/);
  mirror.process.kill("SIGKILL");
  await mirror.ended;

  const { exitCode, stdout } = await run([...uninstall], { loadRemoveData });
  t.equal(exitCode, 0, stdout);
  t.same((await readdir(dir)).toSorted(), ["certs"]);
  t.same((await readdir(certs)).toSorted(), ["a.test"], "_default was made for the mirror");
  t.equal(await readFile(join(certs, "a.test/hosts.toml"), "utf8"), before);
  const again = await run(uninstall, { loadRemoveData });
  t.equal(again.exitCode, 0);
  t.match(again.stdout, /nothing of the mirror's is there/);
});

await t.test("a mirror that is told to is out of hosts.toml files when it has ended", async (t) => {
  const before = 'server = "https://a.test"\n';
  const dir = t.testdir({ certs: { "a.test": { "hosts.toml": before } } });
  const certs = join(dir, "certs");
  const args = [...loneMirror(join(dir, "data")), "--hosts-dir", certs, "--hosts-remove-on-exit"];
  const mirror = startChild(t, args);
  await readyUrls(mirror);
  t.not(await readFile(join(certs, "a.test/hosts.toml"), "utf8"), before);
  mirror.process.kill("SIGTERM");
  t.equal(await mirror.ended, 0);
  t.equal(await readFile(join(certs, "a.test/hosts.toml"), "utf8"), before);
  t.same(await readdir(certs), ["a.test"]);
  t.ok((await readdir(join(dir, "data"))).includes("cache"), "what is cached stays");
});

await t.test("what is not the mirror's stays, whatever directory was named", async (t) => {
  const data = t.testdir({
    cache: { blobs: { x: "" } },
    "lost+found": {},
    "identity.key": "",
    "mine.txt": "",
  });
  t.same(await removeData(data), {
    removed: ["cache", "identity.key"],
    left: ["lost+found", "mine.txt"],
  });
  t.same((await readdir(data)).toSorted(), ["lost+found", "mine.txt"]);
  t.same(await removeData(join(data, "none")), { removed: [], left: [] });
});

await t.test("a broken index does not keep the data from going", async (t) => {
  const data = t.testdir({
    cache: { "index.db": "no database at all, but long enough to look like one".repeat(99) },
  });
  await removeData(data);
  await t.rejects(readdir(data), { code: "ENOENT" });
});

await t.test(
  "the data is kept where that is wished; hosts.toml files that cannot be mended are told",
  async (t) => {
    const dir = t.testdir({
      certs: { "a.test": { "hosts.toml": "# >>> p2p-mirror: half a block\n" } },
      data: {},
    });
    await mkdir(join(dir, "data/cache"));
    await writeFile(join(dir, "data/cache/index.db"), "");
    const args = [
      "uninstall",
      "--keep-data",
      "--hosts-dir",
      join(dir, "certs"),
      "--data-dir",
      join(dir, "data"),
    ];
    const { exitCode, stdout, stderr } = await run(args);
    t.equal(exitCode, 1);
    t.match(stdout, /a\.test: left alone/);
    t.match(stderr, /^p2p-mirror: the mirror still stands in a\.test, for the reason above\n$/);
    t.same(await readdir(join(dir, "data")), ["cache"]);
  },
);

await t.test("--stay: the work is done, and the program waits for a signal", async (t) => {
  const dir = t.testdir();
  const child = startChild(t, ["uninstall", "--stay", "--hosts-dir", dir, "--data-dir", join(dir, "data")]);
  await new Promise<void>((resolve) => {
    child.process.stdout?.on("data", () => {
      if (child.stdout().includes("waiting for a signal")) resolve();
    });
  });
  child.process.kill("SIGTERM");
  t.equal(await child.ended, 0);
});

await t.test("a cache that is in use is told by its lock", async (t) => {
  const data = t.testdir({ cache: {} });
  const db = new IndexDb(join(data, "cache/index.db"), { logger: silentLogger(), onError: () => undefined });
  await db.open({ diskFull: false });
  await t.rejects(removeData(data), { code: "CACHE_IN_USE" });
  db.close();
});
