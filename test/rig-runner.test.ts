/** What `npm test` and `npm run demo` go through, and how a test says that it cannot run. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdir } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { tryExec } from "./rig/exec.ts";
import { isAlive } from "./rig/lock.ts";
import { need } from "./rig/need.ts";
import { until } from "./rig/until.ts";

const RIG = path.join(import.meta.dirname, "rig");
const CHECKOUT = path.join(import.meta.dirname, "..");
const FLAGS = ["--conditions=@p2p-mirror/source", "--disable-warning=ExperimentalWarning"];

interface Failure {
  readonly name: string;
  readonly lines: readonly string[];
}

/** Node arguments that run a snippet which may import from the rig. */
const snippet = (code: string): string[] => [...FLAGS, "--input-type=module-typescript", "--eval", code];

await t.test(
  "one Ctrl-C reaches the command once, however often it arrives; a later one counts again",
  async (t) => {
    const command = `
    let count = 0;
    process.on("SIGINT", () => { console.log("signal " + ++count); if (count === 2) process.exit(7); });
    setInterval(() => {}, 1000);
    console.log("up");`;
    const runner = spawn(
      process.execPath,
      snippet(`
      import { launch } from ${JSON.stringify(path.join(RIG, "launch.mjs"))};
      const args = ["--eval", ${JSON.stringify(command)}];
      process.exitCode = await launch(process.execPath, args, { root: ${JSON.stringify(CHECKOUT)} });`),
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    let said = "";
    runner.stdout.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
    const ended = once(runner, "exit");
    await until("the command is up", () => said.includes("up"));
    // As the terminal, npm and a wrapper do it.
    for (let sent = 0; sent < 3; sent++) runner.kill("SIGINT");
    const first = performance.now();
    await until("the command has seen it", () => said.includes("signal 1"));
    await until("what came at once is over", () => performance.now() - first > 600);
    t.notOk(said.includes("signal 2"));
    runner.kill("SIGINT");
    const [code]: unknown[] = await ended;
    t.equal(code, 7, "the exit code is the command's");
    t.match(said, /signal 2/);
  },
);

await t.test("the command does not outlive a runner that is killed", async (t) => {
  const runner = spawn(
    process.execPath,
    snippet(`
      import { launch } from ${JSON.stringify(path.join(RIG, "launch.mjs"))};
      const code = "console.log(process.pid); setInterval(() => {}, 1000)";
      await launch(process.execPath, ["--eval", code], { root: ${JSON.stringify(CHECKOUT)} });`),
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  let said = "";
  runner.stdout.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  await until("the command is up", () => /\d+\n/.test(said));
  const pid = Number(said);
  t.ok(isAlive(pid));
  runner.kill("SIGKILL");
  await until("the command is gone", () => !isAlive(pid));
});

await t.test("a file that crashes, hangs, or tests nothing is a failure; the others run on", async (t) => {
  const folder = t.testdir({
    "good.mjs": 'import t from "tap"; t.pass("fine"); await t.test("not here", { skip: "no reason" });',
    "wrong.mjs": 'import t from "tap"; t.fail("one"); t.fail("two");',
    "crashes.mjs": 'import t from "tap"; t.pass(); process.kill(process.pid, "SIGKILL");',
    "leaves.mjs": 'import t from "tap"; t.pass(); t.end(); process.exitCode = 5;',
    "hangs.mjs":
      'import t from "tap"; setInterval(() => {}, 1e6); await t.test("waits", () => new Promise(() => {}));',
    "deaf.mjs": "while (true);",
    "empty.mjs": "",
  });
  const files = (await readdir(folder)).map((name) => path.join(folder, name));
  const code = `
    import { runFiles } from ${JSON.stringify(path.join(RIG, "run-files.mjs"))};
    const how = { node: process.execPath, nodeFlags: [], root: ${JSON.stringify(CHECKOUT)}, jobs: 3, timeoutMs: 2000 };
    const { failures, ...sum } = await runFiles({ ...how, files: ${JSON.stringify(files)} });
    console.log("sum " + JSON.stringify(sum));
    console.log("failures " + JSON.stringify(failures));`;
  const { stdout } = await tryExec([process.execPath, ...snippet(code)], { cwd: CHECKOUT });
  const sum: unknown = JSON.parse(/^sum (.*)$/m.exec(stdout)?.[1] ?? "null");
  t.same(
    sum,
    {
      passed: 3,
      failed: 2 + 1 + 1 + 1 + 1 + 1,
      skipped: [{ name: `${path.join(folder, "good.mjs")} > not here`, reason: "no reason" }],
      code: 1,
    },
    "each counts",
  );
  const failures = JSON.parse(/^failures (.*)$/m.exec(stdout)?.[1] ?? "null") as readonly Failure[];
  const said = failures.filter(({ name }) => name.includes("wrong.mjs"));
  const names = ["one", "two"].map((name) => `${path.join(folder, "wrong.mjs")} > ${name}`);
  t.same(
    said.map(({ name }) => name),
    names,
  );
  for (const { lines } of said) t.ok(lines.includes("at:"), "what tap says of it, for the end of the output");
  t.match(stdout, /^ok \S+good\.mjs # \d+ ms$/m);
  t.match(stdout, /^not ok \S+crashes\.mjs # \d+ ms, exit code 137$/m);
  t.match(stdout, /timeout!/, "what hangs is asked for its last words");
});

/** A test in a process that believes not to be root. */
const NEEDY = `
  import t from "tap";
  import { need } from ${JSON.stringify(path.join(RIG, "need.ts"))};
  process.getuid = () => 1000;
  await t.test("needy", async (t) => {
    if ((await need(t, { root: true })) !== undefined) t.fail("it runs all the same");
  });`;

const runNeedy = (ci: string): ReturnType<typeof tryExec> =>
  tryExec([process.execPath, ...snippet(NEEDY)], {
    env: { ...process.env, CI: ci, TAP: "1" },
    cwd: CHECKOUT,
  });

await t.test("what cannot run here is skipped with reason and remedy, and fails where CI=true", async (t) => {
  const [here, inCi] = await Promise.all([runNeedy(""), runNeedy("true")]);
  t.equal(here.code, 0);
  t.match(here.stdout, /ok 1 - can run here # SKIP .*this process is not root\. Remedy: run as root/);
  t.equal(inCi.code, 1);
  t.match(inCi.stdout, /not ok 1 - cannot run here: root: this process is not root\. Remedy: run as root/);
});

await t.test(
  "processes that bring a component at the same time all get it, and leave no half-made folder",
  async (t) => {
    if ((await need(t, { components: ["docker-registry"] })) === undefined) return;
    const folder = t.testdir();
    const code = `
    import { component } from ${JSON.stringify(path.join(RIG, "components/index.ts"))};
    const { version } = await component("docker-registry", { folder: ${JSON.stringify(folder)} });
    console.log(version);`;
    const runs = await Promise.all(
      [1, 2, 3].map(() => tryExec([process.execPath, ...snippet(code)], { cwd: CHECKOUT })),
    );
    for (const run of runs) t.match(run.stdout, /^2\.\d+/, run.stderr);
    t.same(
      (await readdir(folder)).filter((name) => name.startsWith(".making-") || name.endsWith(".lock")),
      [],
    );
  },
);
