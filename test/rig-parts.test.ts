/** The parts of the rig that everything else stands on: nothing may be left behind, and nothing red may look green. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import t from "tap";
import { parseDeb822, parseOneLine } from "./rig/components/apt-sources.ts";
import { kubernetesRecipe } from "./rig/components/kubernetes.ts";
import { RigError } from "./rig/errors.ts";
import { exec } from "./rig/exec.ts";
import { makeImage, randomBytesOf } from "./rig/images.ts";
import { isAlive, tryLock, withLock } from "./rig/lock.ts";
import { parseMetrics } from "./rig/metrics.ts";
import { startProcess } from "./rig/process.ts";
import { tally } from "./rig/tally.mjs";
import { until } from "./rig/until.ts";

const RIG = path.join(import.meta.dirname, "rig");

/** Runs a TypeScript snippet in a Node of its own, as another test file would be. */
function nodeProcess(code: string): ReturnType<typeof spawn> {
  const flags = [
    "--conditions=@p2p-mirror/source",
    "--input-type=module-typescript",
    "--disable-warning=ExperimentalWarning",
  ];
  return spawn(process.execPath, [...flags, "--eval", code], { stdio: ["ignore", "pipe", "inherit"] });
}

async function firstLine(child: ReturnType<typeof spawn>): Promise<string> {
  if (child.stdout === null) throw new TypeError("no output");
  const [line]: unknown[] = await once(createInterface({ input: child.stdout }), "line");
  return String(line);
}

await t.test("a process of the rig dies with the test that started it, even after kill -9", async (t) => {
  const parent = nodeProcess(`
    import { startProcess } from ${JSON.stringify(path.join(RIG, "process.ts"))};
    const one = await startProcess({ name: "sleeper", argv: ["sleep", "600"] });
    console.log(one.pid);
    setInterval(() => {}, 1000);
  `);
  const pid = Number(await firstLine(parent));
  t.ok(isAlive(pid));
  parent.kill("SIGKILL");
  await until("the sleeper is gone", () => !isAlive(pid));
});

await t.test("waiting for a process that ends says so at once, with its log", async (t) => {
  const one = await startProcess({ name: "loser", argv: ["sh", "-c", "echo out of luck >&2; exit 3"] });
  const begin = performance.now();
  const error = await one.until("it is ready", () => false).catch((thrown: unknown) => thrown);
  if (!(error instanceof RigError)) throw error;
  t.equal(error.code, "PROCESS_ENDED");
  t.match(error.message, /loser ended \(3\) before: it is ready\nout of luck/);
  t.ok(performance.now() - begin < 5000, "not after the time for waiting is up");
  t.same(await one.stop(), { code: 3, signal: null });
});

await t.test("a process that ignores SIGTERM is killed after its grace", async (t) => {
  const one = await startProcess({
    name: "deaf",
    argv: ["sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"],
  });
  await one.until("it is up", () => one.log().includes("up"));
  t.same(await one.stop(100), { code: null, signal: "SIGKILL" });
  t.notOk(one.running);
});

await t.test("a program that does not exist is an error with its name", async (t) => {
  await t.rejects(exec(["/nonexistent/program"]), {
    code: "COMMAND_FAILED",
    message: /\/nonexistent\/program/,
  });
});

await t.test("a lock is held by one process, and taken over from a dead one", async (t) => {
  const file = path.join(t.testdir(), "one.lock");
  const held = await tryLock(file);
  t.ok(held);
  t.equal(await tryLock(file), undefined, "held by ourselves");
  await held?.release();

  const child = nodeProcess("console.log(process.pid)");
  const pid = await firstLine(child);
  await until("the other process is gone", () => !isAlive(Number(pid)));
  await writeFile(file, `${pid}\n`);
  let inside = 0;
  let most = 0;
  await Promise.all(
    Array.from({ length: 8 }, () =>
      withLock(file, async () => {
        most = Math.max(most, ++inside);
        await readFile(file, "utf8");
        inside--;
      }),
    ),
  );
  t.equal(most, 1, "eight at once: never two inside");
});

await t.test(
  "the mirror of the system's packages is read from both formats of its source lists",
  async (t) => {
    const deb822 = parseDeb822(`Types: deb deb-src
# a comment
URIs: http://packages.example.test/debian
Suites: stable
 stable-updates
Components: main
Signed-By: /usr/share/keyrings/example.gpg

Enabled: no
Types: deb
URIs: http://off.example.test/debian
Suites: stable
`);
    t.same(deb822, [
      {
        uris: ["http://packages.example.test/debian"],
        suites: ["stable", "stable-updates"],
        signedBy: "/usr/share/keyrings/example.gpg",
      },
    ]);
    const oneLine = parseOneLine(`# deb http://off.example.test/debian stable main
deb [arch=amd64 signed-by=/usr/share/keyrings/example.gpg] http://packages.example.test/debian stable main
deb-src http://packages.example.test/debian stable main
deb http://other.example.test/debian stable main contrib
`);
    t.same(oneLine, [
      {
        uris: ["http://packages.example.test/debian"],
        suites: ["stable"],
        signedBy: "/usr/share/keyrings/example.gpg",
      },
      { uris: ["http://other.example.test/debian"], suites: ["stable"], signedBy: undefined },
    ]);
  },
);

await t.test("equal seeds make equal images, and layers are tars that any tar reads", async (t) => {
  const [one, same, other] = ["a", "a", "b"].map((seed) =>
    makeImage({ seed, layers: [70_001], compression: "gzip" }),
  );
  t.equal(one?.descriptor.digest, same?.descriptor.digest);
  t.not(one?.descriptor.digest, other?.descriptor.digest);
  const layer = one?.blobs[1]?.bytes;
  t.ok(layer);
  const folder = t.testdir();
  await exec(["tar", "-xzf", "-", "-C", folder], { input: layer });
  const [name = ""] = (await exec(["ls", folder])).stdout.trim().split("\n");
  t.ok((await readFile(path.join(folder, name))).equals(randomBytesOf("a", name, 70_001)));
});

await t.test("the count of test results", async (t) => {
  t.same(
    tally(`TAP version 14
# Subtest: a.test.ts
    # Subtest: inner
        ok 1 - yes
        not ok 2 - no
          ---
          found: |
            ok 1 - text of another test
          ...
        ok 3 - maybe # SKIP no root. Remedy: be root
        1..3
    not ok 1 - inner # time=1ms
    1..1
not ok 1 - a.test.ts # time=2ms
# Subtest: b.test.ts
    ok 1 - fine
    1..1
not ok 2 - b.test.ts # timed out
ok 3 - c.test.ts # SKIP
1..3
`),
    {
      passed: 2,
      failed: 2,
      skipped: [
        { name: "a.test.ts > inner > maybe", reason: "no root. Remedy: be root" },
        { name: "c.test.ts", reason: "skip" },
      ],
      failures: [
        {
          name: "a.test.ts > inner > no",
          lines: ["found: |", "  ok 1 - text of another test"],
        },
        { name: "b.test.ts", lines: ["timed out"] },
      ],
    },
    "leaves count once; a file that failed as a whole counts, too",
  );
  t.equal(tally("TAP version 14\nok 1 - one\nBail out! no more\n").failed, 1);
});

await t.test("metrics are summed over the labels that were not asked for", async (t) => {
  const scrape = parseMetrics(`# HELP p2p_mirror_bytes_total Bytes
# TYPE p2p_mirror_bytes_total counter
p2p_mirror_bytes_total{source="peer",kind="blob"} 5
p2p_mirror_bytes_total{source="peer",kind="manifest"} 2
p2p_mirror_bytes_total{source="upstream",kind="blob"} 1.5e3
p2p_mirror_up 1
`);
  t.equal(scrape.sum("p2p_mirror_bytes_total", { source: "peer" }), 7);
  t.equal(scrape.sum("p2p_mirror_bytes_total"), 1507);
  t.equal(scrape.sum("p2p_mirror_up"), 1);
  t.equal(scrape.sum("p2p_mirror_absent"), 0);
});

await t.test("where no lock can be made it is said at once, not after the wait for one", async (t) => {
  const file = path.join(t.testdir({ file: "no folder" }), "file", "x.lock");
  await t.rejects(
    withLock(file, () => Promise.resolve()),
    { code: "COMMAND_FAILED", message: /^no lock can be made: E/ },
  );
});

await t.test("a release of Kubernetes is the one that its go.mod pins", async (t) => {
  for (const minor of ["1.36", "1.34"]) {
    const { go } = kubernetesRecipe(minor);
    const pinned = await readFile(path.join(RIG, "go", go?.module ?? "", "go.mod"), "utf8");
    const [, version] = /^\tk8s\.io\/kubernetes v(\S+)/m.exec(pinned) ?? [];
    t.match(version, new RegExp(`^${minor.replace(".", "\\.")}\\.\\d+$`));
    t.match(go?.ldflags, `gitVersion=v${version} `);
  }
  t.throws(() => kubernetesRecipe("1.2"), { message: 'KUBERNETES_RELEASE is "1.2"; there are 1.36, 1.34' });
});
