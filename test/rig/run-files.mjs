/** Runs test files, each in a process of its own; what it prints is TAP. */
import os from "node:os";
import { launch } from "./launch.mjs";
import { addTally, noTests, tally } from "./tally.mjs";

/** Between Ctrl-C and the end by force (test files may swallow signals). */
const GRACE_MS = 3000;

const STOPPING = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"];

/**
 * The files are started without tap's own runner: its import hooks, needed for coverage alone, cost a file as much CPU
 * time as the average test in it. A line for each file that passed; all that one printed that did not.
 * @param {object} how
 * @param {string[]} how.files
 * @param {number} how.jobs files at once
 * @param {number} how.timeoutMs for each file
 * @returns {Promise<import("./tally.mjs").Tally & { code: number }>} code: 128 + n after signal n, else 0 or 1
 */
export async function runFiles({ node, nodeFlags, root, files, jobs, timeoutMs, env = {} }) {
  const total = noTests();
  const waiting = [...files];
  let stopped;
  const stop = (signal) => {
    stopped ??= signal;
    waiting.length = 0;
  };
  // Every file that runs passes signals on by listeners of its own.
  process.setMaxListeners(process.getMaxListeners() + jobs);
  for (const signal of STOPPING) process.on(signal, stop);

  const runOne = async (file) => {
    const lines = [];
    const onLine = (line) => lines.push(line);
    const begin = performance.now();
    const code = await launch(node, [...nodeFlags, file], {
      root,
      // The time limit is kept here: from outside, a file is asked what it still waits for.
      env: { ...env, TAP: "1", TAP_TIMEOUT: "0" },
      onLine,
      graceMs: GRACE_MS,
      timeoutMs,
    });
    const ran = tally(lines.join("\n"));
    // A file without a plan, or one that ends badly without a failed test (it crashed, it hung), must not look green.
    const planned = lines.some((line) => /^1\.\.\d/.test(line));
    const bad = ran.failed > 0 || code !== 0 || !planned;
    addTally(total, ran, file);
    if (bad && ran.failed === 0) {
      total.failed += 1;
      total.failures.push({ name: file, lines: [`exit code ${code}`, ...lines.slice(-20)] });
    }
    const ms = (performance.now() - begin).toFixed(0);
    console.log(`${bad ? "not ok" : "ok"} ${file} # ${ms} ms${code === 0 ? "" : `, exit code ${code}`}`);
    if (bad) console.log(lines.join("\n"));
  };
  const worker = async () => {
    for (let file = waiting.shift(); file !== undefined; file = waiting.shift()) await runOne(file);
  };
  try {
    await Promise.all(Array.from({ length: jobs }, worker));
  } finally {
    process.setMaxListeners(process.getMaxListeners() - jobs);
    for (const signal of STOPPING) process.off(signal, stop);
  }
  const code = stopped === undefined ? Number(total.failed > 0) : 128 + os.constants.signals[stopped];
  return { ...total, code };
}
