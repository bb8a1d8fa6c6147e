/** `npm test`: the fast tests of the packages, then the tests with real components; one summary at the end. */
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { launch } from "./launch.mjs";
import { tally } from "./tally.mjs";

/** Seconds a file may take. Real containerds on two cores that others use as well need their time. */
const FAST_TIMEOUT = 60;
const REAL_TIMEOUT = 300;

const SUITES = {
  fast: { where: /^packages\/[^/]+\/test\//, flags: [`--timeout=${FAST_TIMEOUT}`, "--jobs=2"] },
  // One at a time: these share network names, CPU and disk, and measure time.
  real: { where: /^test\//, flags: [`--timeout=${REAL_TIMEOUT}`, "--jobs=1"] },
};

/**
 * Arguments: `--fast` or `--real` for one of the two suites, files for these only.
 * @returns {Promise<number>} exit code: 0 only if something passed and nothing failed
 */
export async function runTests({ node, root, args, nodeFlags }) {
  const unknown = args.find((arg) => arg.startsWith("-") && !["--fast", "--real"].includes(arg));
  if (unknown !== undefined) {
    console.error(`unknown argument ${unknown}; known: --fast, --real, test files`);
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
  const only = ["fast", "real"].filter((suite) => args.includes(`--${suite}`));
  const out = mkdtempSync(path.join(os.tmpdir(), "p2p-mirror-tap-"));
  /** @type {import("./tally.mjs").Tally} */
  const sum = { passed: 0, failed: 0, skipped: [] };
  let code = 0;
  try {
    for (const suite of only.length > 0 ? only : ["fast", "real"]) {
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
      if (ended > 128) break;
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

/** On a terminal tap's own live display; elsewhere a line per file, and all a failed file said. */
async function runTap({ node, root, flags, files, tapFile }) {
  const tap = path.join(root, "node_modules/.bin/tap");
  if (process.stdout.isTTY) {
    return launch(node, [tap, "run", ...flags, `--output-file=${tapFile}`, ...files], { root });
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
  const ended = await launch(node, [tap, "run", "--reporter=tap", ...flags, ...files], { root, onLine });
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
