/**
 * `npm test`, everything: format, lint and types, the fast tests of the packages, then the tests with real components;
 * one summary at the end.
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
  fast: { where: /^packages\/[^/]+\/test\//, flags: [`--timeout=${FAST_TIMEOUT}`, "--jobs=2"] },
  // One at a time: these share network names, CPU and disk, and measure time.
  real: { where: /^test\//, flags: [`--timeout=${REAL_TIMEOUT}`, "--jobs=1"] },
};

const STAGES = ["static", ...Object.keys(SUITES)];

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
  let code = 0;
  try {
    if (stages.includes("static")) code = await runStatic({ node, root }, sum);
    for (const suite of Object.keys(SUITES).filter((name) => stages.includes(name))) {
      if (code > 128) break;
      const files = all.filter((file) => SUITES[suite].where.test(file));
      if (files.length === 0) continue;
      if (suite === "real") await launch(node, [...nodeFlags, "test/rig/fetch-components.ts"], { root });
      console.log(`\n${suite} tests: ${files.length} files`);
      const tapFile = path.join(out, `${suite}.tap`);
      const ended = await runTap({ node, root, flags: SUITES[suite].flags, files, tapFile });
      code ||= ended;
      const counted = existsSync(tapFile)
        ? tally(readFileSync(tapFile, "utf8"))
        : { passed: 0, failed: 1, skipped: [] };
      sum.passed += counted.passed;
      // A runner that fails without a failed test (it crashed, or was stopped) must not look green.
      sum.failed += counted.failed + (ended !== 0 && counted.failed === 0 ? 1 : 0);
      sum.skipped.push(...counted.skipped);
    }
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

/** @returns {Promise<number>} the first exit code that is not 0 */
async function runStatic({ node, root }, sum) {
  console.log("\nstatic checks");
  let code = 0;
  for (const { name, tool, flags } of STATIC_CHECKS) {
    const lines = [];
    const onLine = (line) => lines.push(line);
    const ended = await launch(node, [toolScript(root, tool), ...flags], { root, onLine });
    console.log(`${ended === 0 ? "ok" : "not ok"} ${name}`);
    if (ended === 0) sum.passed += 1;
    else {
      console.log(lines.join("\n"));
      sum.failed += 1;
      code ||= ended;
    }
  }
  return code;
}

/** Real path of a tool: its file in .bin asks for whatever "node" is on PATH. */
const toolScript = (root, name) => realpathSync(path.join(root, "node_modules/.bin", name));

/** On a terminal tap's own live display; elsewhere a line per file, and all a failed file said. */
async function runTap({ node, root, flags, files, tapFile }) {
  const tap = toolScript(root, "tap");
  if (process.stdout.isTTY) {
    return launch(node, [tap, "run", ...flags, `--output-file=${tapFile}`, ...files], {
      root,
      graceMs: GRACE_MS,
    });
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
  const ended = await launch(node, [tap, "run", "--reporter=tap", ...flags, ...files], {
    root,
    onLine,
    graceMs: GRACE_MS,
  });
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
