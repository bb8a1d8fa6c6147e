import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { RigError } from "./errors.ts";
import { until, type UntilOptions } from "./until.ts";

export interface ProcessOptions {
  /** Name in errors and logs. */
  readonly name: string;
  readonly argv: readonly string[];
  /** The whole environment; default: this process's without proxies, which would catch traffic to test hosts. */
  readonly env?: NodeJS.ProcessEnv | undefined;
  readonly cwd?: string | undefined;
  /** Network namespace to run in. */
  readonly netns?: string | undefined;
  /** A mount namespace of its own (as root): mounts the process makes vanish with it, even after SIGKILL. */
  readonly ownMounts?: boolean;
  /** Characters of output kept, the newest; default 256 Ki. */
  readonly logLimit?: number;
}

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A real program that runs beside the test. It dies with the test's process, however that ends. */
export interface RigProcess extends AsyncDisposable {
  readonly name: string;
  readonly pid: number;
  readonly running: boolean;
  /** Resolves when the process is gone and its output is complete. */
  readonly ended: Promise<Ended>;
  /** The newest output, standard output and error in one. */
  log(): string;
  kill(signal: NodeJS.Signals): void;
  /** SIGTERM, and SIGKILL after `graceMs` (default 10,000). Resolves when the process is gone. */
  stop(graceMs?: number): Promise<Ended>;
  /** Looks at `probe` until it holds; gives up at once when the process ends. */
  until<T>(
    what: string,
    probe: () => T | Promise<T>,
    options?: UntilOptions,
  ): Promise<Exclude<T, undefined | false>>;
}

/** Starts a program. Throws RigError COMMAND_FAILED where it cannot be executed at all. */
export async function startProcess(options: ProcessOptions): Promise<RigProcess> {
  const argv = [...wrappers(options), ...options.argv];
  const [command = "", ...args] = argv;
  const child = spawn(command, args, {
    cwd: options.cwd,
    env: options.env ?? withoutProxies(process.env),
    stdio: ["ignore", "pipe", "pipe"],
    // Ctrl-C at the terminal must reach the test, which then stops its processes in order.
    detached: true,
  });
  const limit = options.logLimit ?? 256 * 1024;
  let log = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      log = (log + text).slice(-limit);
    });
  }
  let running = true;
  killAtExit(child);
  const ended = new Promise<Ended>((resolve) => {
    let timer: NodeJS.Timeout | undefined;
    child.once("exit", () => {
      running = false;
      children.delete(child);
      // What the program itself started (a shim) may hold its outputs open for as long as it likes.
      timer = setTimeout(() => {
        child.stdout.destroy();
        child.stderr.destroy();
      }, OUTPUT_GRACE_MS);
    });
    child.once("close", (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal });
    });
  });
  await new Promise<void>((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", (cause) => {
      children.delete(child);
      for (const stream of [child.stdout, child.stderr]) stream.destroy();
      reject(new RigError("COMMAND_FAILED", `${options.name}: ${command} could not be started`, { cause }));
    });
  });
  child.on("error", () => undefined);
  const pid = child.pid ?? -1;

  const self: RigProcess = {
    name: options.name,
    pid,
    get running() {
      return running;
    },
    ended,
    log: () => log,
    kill: (signal) => void child.kill(signal),
    async stop(graceMs = 10_000) {
      if (!running) return ended;
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), graceMs);
      try {
        return await ended;
      } finally {
        clearTimeout(timer);
      }
    },
    async until(what, probe, untilOptions = {}) {
      const gone = new AbortController();
      void ended.then(({ code, signal }) =>
        gone.abort(
          new RigError(
            "PROCESS_ENDED",
            `${options.name} ended (${code ?? signal}) before: ${what}\n${log.slice(-4000)}`,
          ),
        ),
      );
      try {
        return await until(`${options.name}: ${what}`, probe, {
          detail: () => log.slice(-4000),
          ...untilOptions,
          signal: gone.signal,
        });
      } catch (error) {
        // An aborted pause throws an AbortError that only wraps the reason.
        throw gone.signal.aborted ? gone.signal.reason : error;
      }
    },
    async [Symbol.asyncDispose]() {
      await self.stop();
    },
  };
  return self;
}

const children = new Set<ChildProcess>();

/** Where setpriv is missing, at least an orderly exit of the test takes the process along. One listener serves all. */
function killAtExit(child: ChildProcess): void {
  process.off("exit", killChildren).once("exit", killChildren);
  children.add(child);
}

function killChildren(): void {
  for (const child of children) child.kill("SIGKILL");
}

/** Prefixes that replace themselves by the program (exec), so that the pid stays that of the program. */
function wrappers(options: ProcessOptions): string[] {
  const prefix: string[] = [];
  if (existsSync(SETPRIV)) {
    // The kernel says nothing of a parent that died before the wish was uttered: look whether it is still ours.
    const stillOurs = '[ "$PPID" = "$0" ] || exit 1; exec "$@"';
    prefix.push(SETPRIV, "--pdeathsig", "KILL", "--", "sh", "-c", stillOurs, String(process.pid));
  }
  if (options.netns !== undefined) prefix.push("ip", "netns", "exec", options.netns);
  // `ip netns exec` gives a mount namespace of its own already.
  else if (options.ownMounts === true && process.getuid?.() === 0) {
    prefix.push("unshare", "--mount", "--propagation", "slave", "--");
  }
  return prefix;
}

const OUTPUT_GRACE_MS = 500;
const SETPRIV = "/usr/bin/setpriv";

export function withoutProxies(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(env).filter(([name]) => !/^(https?|all|no|ftp)_proxy$/i.test(name)),
  );
}
