/**
 * `npm test`, everything: format, lint and types beside the fast tests of the packages, then the tests with real
 * components; one summary at the end. `npm run check` is the same without the real components.
 */
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { launch } from "./launch.mjs";
import { tally } from "./tally.mjs";

/** Seconds a file may take. Real containerds on two cores that others use as well need their time. */
const FAST_TIMEOUT = 60;
const REAL_TIMEOUT = 300;

/** Between Ctrl-C and the end by force. */
const GRACE_MS = 3000;

/** What needs no test to run: each counts as one. */
const STATIC_CHECKS = [
  { name: "format", tool: "oxfmt", flags: ["--check", "."] },
  { name: "lint", tool: "oxlint", flags: ["--type-aware"] },
  { name: "types", tool: "tsc", flags: ["-p", "."] },
];

const SUITES = {
  // Half of a fast file's time is waiting for a deadline or a socket: more files at once than there are processors.
  fast: {
    where: /^packages\/[^/]+\/test\//,
    flags: [`--timeout=${FAST_TIMEOUT}`, `--jobs=${os.availableParallelism() + 2}`],
  },
  // One at a time: these share network names, CPU and disk, and measure time.
  real: { where: /^test\//, flags: [`--timeout=${REAL_TIMEOUT}`, "--jobs=1"] },
};

const STAGES = ["static", ...Object.keys(SUITES)];

/**
 * Where Node keeps what it compiled, and TypeScript without its types: a third of the fast tests' CPU time is loading
 * the same modules anew in each file. Keyed by their content, so nothing is ever stale.
 */
const COMPILE_CACHE = "node_modules/.cache/node-compile";

/**
 * Arguments: `--static`, `--fast`, `--real` for these only, files for just these tests.
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
  const out = mkdtempSync(path.join(os.tmpdir(), "p2p-mirror-tap-"));
  /** @type {import("./tally.mjs").Tally} */
  const sum = { passed: 0, failed: 0, skipped: [] };
  const runSuite = async (suite) => {
    const files = all.filter((file) => SUITES[suite].where.test(file));
    if (!stages.includes(suite) || files.length === 0) return 0;
    if (suite === "real") await launch(node, [...nodeFlags, "test/rig/fetch-components.ts"], { root });
    console.log(`\n${suite} tests: ${files.length} files`);
    const tapFile = path.join(out, `${suite}.tap`);
    const ended = await runTap({ node, root, flags: SUITES[suite].flags, files, tapFile });
    const counted = existsSync(tapFile)
      ? tally(readFileSync(tapFile, "utf8"))
      : { passed: 0, failed: 1, skipped: [] };
    sum.passed += counted.passed;
    // A runner that fails without a failed test (it crashed, or was stopped) must not look green.
    sum.failed += counted.failed + (ended !== 0 && counted.failed === 0 ? 1 : 0);
    sum.skipped.push(...counted.skipped);
    return ended;
  };
  let code = 0;
  try {
    // Side by side, for the fast tests leave room; the real ones measure time, and get the machine to themselves.
    const [checks, fast] = await Promise.all([
      stages.includes("static") ? runStatic({ node, root }) : [],
      runSuite("fast"),
    ]);
    code = reportStatic(checks, sum) || fast;
    if (code <= 128) code = (await runSuite("real")) || code;
  } finally {
    rmSync(out, { recursive: true, force: true });
  }
  if (sum.skipped.length > 0) {
    console.log("\nskipped:");
    for (const { name, reason } of sum.skipped) console.log(`  ${name}: ${reason}`);
  }
  console.log(`\n${sum.passed} passed, ${sum.failed} failed, ${sum.skipped.length} skipped`);
  if (code !== 0) return code;
  return sum.failed > 0 || sum.passed + sum.skipped.length === 0 ? 1 : 0;
}

/** Says nothing yet: on a terminal the display of the tests is in the way. */
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

/** On a terminal tap's own live display; elsewhere a line per file, and all a failed file said. */
async function runTap({ node, root, flags, files, tapFile }) {
  const tap = toolScript(root, "tap");
  const how = { root, graceMs: GRACE_MS, env: { NODE_COMPILE_CACHE: path.join(root, COMPILE_CACHE) } };
  if (process.stdout.isTTY) {
    return launch(node, [tap, "run", ...flags, `--output-file=${tapFile}`, ...files], how);
  }
  const all = [];
  let file = [];
  const onLine = (line) => {
    all.push(line);
    file.push(line);
    if (!/^(not )?ok /.test(line)) return;
    console.log(line.replace(/ \{$/, "").replace(/^((?:not )?ok) \d+ - /, "$1 "));
    if (line.startsWith("not ok")) console.log(file.slice(0, -1).join("\n"));
    file = [];
  };
  const ended = await launch(node, [tap, "run", "--reporter=tap", ...flags, ...files], { ...how, onLine });
  writeFileSync(tapFile, all.join("\n"));
  return ended;
}

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
