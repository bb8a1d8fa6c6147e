import { PassThrough } from "node:stream";
import { runProgram, type ProgramDeps } from "../../src/cli/program.ts";
import type { ExitCode, Output, Terminal } from "../../src/cli/terminal.ts";

/** What a command wrote and how it ended. */
export interface Outcome {
  readonly exitCode: ExitCode;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal;
  readonly loadDaemon?: ProgramDeps["loadDaemon"];
  readonly loadRemoveData?: ProgramDeps["loadRemoveData"];
  /** Both outputs are terminals. */
  readonly tty?: boolean;
  /** Of the terminal; default 24. */
  readonly rows?: number | undefined;
}

/** Takes down what is written to it, by `write` or through its stream. */
export function memoryOutput(isTTY: boolean, rows = 24): Output & { readonly text: () => string } {
  let text = "";
  const stream = Object.assign(new PassThrough(), { isTTY, columns: 100, rows });
  stream.on("data", (chunk: Buffer) => (text += chunk.toString("utf8")));
  return { write: (chunk) => void (text += chunk), isTTY, stream, text: () => text };
}

const noDaemon = (): Promise<never> => Promise.reject(new Error("this command loads no daemon"));
const removeNothing = (): Promise<never> => Promise.reject(new Error("this command removes no data"));

/** Runs a command line in this process. */
export async function run(args: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const stdout = memoryOutput(options.tty === true, options.rows);
  const stderr = memoryOutput(options.tty === true);
  const terminal: Terminal = {
    args,
    env: options.env ?? {},
    stdout,
    stderr,
    signal: options.signal ?? new AbortController().signal,
  };
  const exitCode = await runProgram(terminal, {
    version: "1.2.3",
    loadDaemon: options.loadDaemon ?? noDaemon,
    loadRemoveData: options.loadRemoveData ?? removeNothing,
  });
  return { exitCode, stdout: stdout.text(), stderr: stderr.text() };
}
