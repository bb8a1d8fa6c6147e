import { spawn } from "node:child_process";
import { RigError } from "./errors.ts";

export interface ExecOptions {
  readonly cwd?: string | undefined;
  readonly env?: NodeJS.ProcessEnv | undefined;
  /** Bytes for standard input; none by default. */
  readonly input?: string | Uint8Array | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds until SIGKILL, default 120,000. */
  readonly timeoutMs?: number;
}

export interface ExecResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Bytes kept of each output; what a command says beyond that is a mistake of the test. */
const OUTPUT_LIMIT = 16 * 1024 * 1024;

/** Characters of a command in its error: what it said matters more, and comes behind it. */
const SHOWN_COMMAND = 120;

/** Runs a command to its end and gives its exit code (137 and so on after a signal). Throws only if it cannot start. */
export async function tryExec(argv: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
  const [command = "", ...args] = argv;
  const child = spawn(command, args, {
    cwd: options.cwd,
    env: options.env ?? process.env,
    stdio: ["pipe", "pipe", "pipe"],
    signal: options.signal,
    killSignal: "SIGKILL",
  });
  // Not spawn's own time limit: that timer goes on where the program does not exist.
  const timer = setTimeout(() => child.kill("SIGKILL"), options.timeoutMs ?? 120_000);
  const outputs = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name].setEncoding("utf8").on("data", (text: string) => {
      if (outputs[name].length < OUTPUT_LIMIT) outputs[name] += text;
    });
  }
  // A command that ends without reading its input is no error of its own.
  child.stdin.on("error", () => undefined).end(options.input);
  return new Promise<ExecResult>((resolve, reject) => {
    child.once("error", (cause) => {
      clearTimeout(timer);
      // Node leaves the pipes of a child that never was open.
      for (const stream of [child.stdin, child.stdout, child.stderr]) stream.destroy();
      reject(new RigError("COMMAND_FAILED", `${command} could not be run`, { cause }));
    });
    child.once("close", (code, signal) => {
      clearTimeout(timer);
      resolve({ code: code ?? (signal === "SIGKILL" ? 137 : 128), ...outputs });
    });
  });
}

/** The same for commands that must succeed: anything but exit code 0 is a RigError with what the command said. */
export async function exec(argv: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
  const result = await tryExec(argv, options);
  if (result.code !== 0) {
    const said = `${result.stdout}\n${result.stderr}`.trim().slice(-4000);
    const command = argv.join(" ");
    const shown = command.length > SHOWN_COMMAND ? `${command.slice(0, SHOWN_COMMAND)} …` : command;
    throw new RigError("COMMAND_FAILED", `${shown} ended with ${result.code}:\n${said}`);
  }
  return result;
}
