/**
 * `npm test`, everything: format, lint and types beside the fast tests of the packages, then the slow ones, then those
 * with real components; one summary at the end. `npm run check` is the same without the real components.
 */
import { existsSync, readdirSync, realpathSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { launch } from "./launch.mjs";
import { runFiles } from "./run-files.mjs";
import { addTally, noTests } from "./tally.mjs";

/** What needs no test to run: each counts as one. */
const STATIC_CHECKS = [
  { name: "format", tool: "oxfmt", flags: ["--check", "."] },
  { name: "lint", tool: "oxlint", flags: ["--type-aware"] },
  { name: "types", tool: "tsc", flags: ["-p", "."] },
  { name: "types of the status page", tool: "tsc", flags: ["-p", "packages/p2p-mirror/page"] },
];

const isSlow = (file) => file.endsWith(".slow.test.ts");
const isTimed = (file) => file.endsWith(".timed.test.ts");
const isReal = (file) => file.startsWith("test/") && !isSlow(file);

// Half of a fast file's time is waiting for a deadline or a socket: more files at once than there are processors.
const SEVERAL = os.availableParallelism() + 2;

/** A file's time is for the worst day: real containerds on two cores that others use as well need theirs. */
const SUITES = {
  fast: { has: (file) => file.startsWith("packages/") && !isSlow(file), timeoutMs: 120_000, jobs: SEVERAL },
  // A minute for `npm run check` is CPU time on two processors: these take the most of it. They share nothing.
  slow: { has: isSlow, timeoutMs: 600_000, jobs: SEVERAL },
  // Each has names, addresses, ports and folders of its own. They wait for programs half of their time.
  real: { has: (file) => isReal(file) && !isTimed(file), timeoutMs: 600_000, jobs: 2 },
  // These judge seconds, or what is asked and sent again when time runs out: each has the machine to itself.
  timed: { has: (file) => isReal(file) && isTimed(file), timeoutMs: 600_000, jobs: 1 },
};

const STAGES = ["static", ...Object.keys(SUITES)];

/**
 * Where Node keeps what it compiled, and TypeScript without its types: a quarter of the fast tests' CPU time is loading
 * the same modules anew in each file. Keyed by their content, so nothing is ever stale.
 */
const COMPILE_CACHE = "node_modules/.cache/p2p-mirror-compiled";

/**
 * Arguments: `--static`, `--fast`, `--slow`, `--real`, `--timed` for these only, files for just these tests.
 * @returns {Promise<number>} exit code: 0 only if something passed and nothing failed
 */
export async function runTests({ node, root, args, nodeFlags }) {
  const unknown = args.find((arg) => arg.startsWith("-") && !STAGES.includes(arg.slice(2)));
  if (unknown !== undefined) {
    console.error(
      `unknown argument ${unknown}; known: ${STAGES.map((stage) => `--${stage}`).join(", ")}, test files`,
    );
    return 2;
  }
  const chosen = args
    .filter((arg) => !arg.startsWith("-"))
    .map((arg) => path.relative(root, path.resolve(arg)));
  const missing = chosen.find((file) => !existsSync(path.join(root, file)));
  if (missing !== undefined) {
    console.error(`no such test file: ${missing}`);
    return 2;
  }
  const all = chosen.length > 0 ? chosen : testFiles(root);
  const only = STAGES.filter((stage) => args.includes(`--${stage}`));
  const stages = only.length > 0 ? only : chosen.length > 0 ? Object.keys(SUITES) : STAGES;
  const sum = noTests();
  const runSuite = async (suite) => {
    const { has, jobs, timeoutMs } = SUITES[suite];
    const matching = all.filter(has);
    // Where several run at once, those of `test` first: the longest one is among them.
    const files = jobs > 1 ? matching.toReversed() : matching;
    if (!stages.includes(suite) || files.length === 0) return 0;
    if (files.some(isReal)) await launch(node, [...nodeFlags, "test/rig/fetch-components.ts"], { root });
    console.log(`\n${suite} tests: ${files.length} files`);
    const env = { NODE_COMPILE_CACHE: path.join(root, COMPILE_CACHE) };
    const ran = await runFiles({ node, nodeFlags, root, files, jobs, timeoutMs, env });
    addTally(sum, ran);
    return ran.code;
  };
  // Side by side, for the fast tests leave room.
  const [checks, fast] = await Promise.all([
    stages.includes("static") ? runStatic({ node, root }) : [],
    runSuite("fast"),
  ]);
  let code = reportStatic(checks, sum) || fast;
  for (const suite of ["slow", "real", "timed"]) if (code <= 128) code = (await runSuite(suite)) || code;
  if (sum.skipped.length > 0) {
    console.log("\nskipped:");
    for (const { name, reason } of sum.skipped) console.log(`  ${name}: ${reason}`);
  }
  // Again, and at the end: the output of a run is long, and what is kept of it may be its end only.
  if (sum.failures.length > 0) {
    console.log("\nfailed:");
    for (const { name, lines } of sum.failures) console.log([`  ${name}`, ...lines].join("\n    "));
  }
  console.log(`\n${sum.passed} passed, ${sum.failed} failed, ${sum.skipped.length} skipped`);
  if (code !== 0) return code;
  return sum.failed > 0 || sum.passed + sum.skipped.length === 0 ? 1 : 0;
}

/** Says nothing yet: the tests are speaking. */
const runStatic = ({ node, root }) =>
  Promise.all(
    STATIC_CHECKS.map(async ({ name, tool, flags }) => {
      const lines = [];
      const onLine = (line) => lines.push(line);
      const code = await launch(node, [toolScript(root, tool), ...flags], { root, onLine });
      return { name, code, lines };
    }),
  );

/** @returns {number} the first exit code that is not 0 */
function reportStatic(checks, sum) {
  if (checks.length > 0) console.log("\nstatic checks");
  for (const { name, code, lines } of checks) {
    console.log(`${code === 0 ? "ok" : "not ok"} ${name}`);
    if (code === 0) sum.passed += 1;
    else {
      console.log(lines.join("\n"));
      sum.failed += 1;
    }
  }
  return checks.find(({ code }) => code !== 0)?.code ?? 0;
}

/** Real path of a tool: its file in .bin asks for whatever "node" is on PATH. */
const toolScript = (root, name) => realpathSync(path.join(root, "node_modules/.bin", name));

function testFiles(root) {
  const workspaces = readdirSync(path.join(root, "packages")).map((name) => `packages/${name}/test`);
  return [...workspaces, "test"].flatMap((folder) => {
    if (!existsSync(path.join(root, folder))) return [];
    return readdirSync(path.join(root, folder), { recursive: true })
      .filter((file) => file.endsWith(".test.ts"))
      .map((file) => path.posix.join(folder, file.replaceAll(path.sep, "/")))
      .toSorted();
  });
}
