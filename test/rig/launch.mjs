/** Runs one command of the project, passes signals on, and gives back its exit code. */
import { spawn } from "node:child_process";
import { accessSync, constants } from "node:fs";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";

const FORWARDED = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGWINCH"];

/** For the last words of what took too long. */
const LAST_WORDS_MS = 3000;

/** One Ctrl-C reaches this process up to three times: from the terminal, from npm, from a wrapper such as timeout. */
const SAME_SIGNAL_MS = 400;

/**
 * The child gets a session of its own, so that it sees each signal exactly once, from here: to the daemons a second one
 * means "now, by force". With `onLine` its standard output comes here line by line instead of to the terminal.
 * With `graceMs`, what is not gone that long after the first signal is killed. After `timeoutMs` SIGALRM asks the child
 * for its end (a tap test then says what it still waits for), and SIGKILL makes it.
 * @returns {Promise<number>} the exit code, 128 + n after signal n
 */
export async function launch(command, args, { root, env = {}, onLine, graceMs, timeoutMs }) {
  const [program, before] = withParentDeath(command);
  const child = spawn(program, [...before, ...args], {
    cwd: root,
    stdio: ["inherit", onLine === undefined ? "inherit" : "pipe", "inherit"],
    detached: true,
    env: { ...projectEnvironment(root), ...env },
  });
  const lines = onLine === undefined ? undefined : createInterface({ input: child.stdout });
  lines?.on("line", onLine);
  let force;
  const late =
    timeoutMs === undefined
      ? undefined
      : setTimeout(() => {
          // To the child alone: what it started is to be seen in its last words.
          child.kill("SIGALRM");
          force ??= setTimeout(() => toGroup(child.pid, "SIGKILL"), LAST_WORDS_MS);
        }, timeoutMs);
  const last = new Map();
  const handlers = FORWARDED.map((signal) => {
    const handler = () => {
      const now = Date.now();
      if (signal !== "SIGWINCH" && now - (last.get(signal) ?? 0) < SAME_SIGNAL_MS) return;
      last.set(signal, now);
      // To its whole group, as the terminal would; what made itself a session of its own is its maker's business.
      toGroup(child.pid, signal);
      if (signal !== "SIGWINCH" && graceMs !== undefined) {
        force ??= setTimeout(() => toGroup(child.pid, "SIGKILL"), graceMs);
      }
    };
    process.on(signal, handler);
    return [signal, handler];
  });
  try {
    return await new Promise((resolve, reject) => {
      child.once("error", reject);
      // "close" comes after the last line of output.
      child.once(onLine === undefined ? "exit" : "close", (code, signal) =>
        resolve(code ?? 128 + os.constants.signals[signal]),
      );
    });
  } finally {
    clearTimeout(late);
    clearTimeout(force);
    for (const [signal, handler] of handlers) process.off(signal, handler);
  }
}

function toGroup(pid, signal) {
  try {
    process.kill(-pid, signal);
  } catch {
    // It is gone already.
  }
}

/** The project's own tools, its Node first among them, come before the system's. */
export function projectEnvironment(root) {
  const bin = path.join(root, "node_modules/.bin");
  return { ...process.env, PATH: [bin, process.env["PATH"] ?? ""].join(path.delimiter) };
}

/** Where util-linux is there, a killed runner (SIGKILL included) takes its child along. */
function withParentDeath(command) {
  const setpriv = "/usr/bin/setpriv";
  try {
    accessSync(setpriv, constants.X_OK);
  } catch {
    return [command, []];
  }
  return process.platform === "linux" ? [setpriv, ["--pdeathsig", "TERM", "--", command]] : [command, []];
}
