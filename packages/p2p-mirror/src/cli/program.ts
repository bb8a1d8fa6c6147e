import { Command, CommanderError } from "commander";
import { MIRROR_SCHEMA } from "../config/schema.ts";
import { addSettings, givenSettings } from "./settings-options.ts";
import type { CreateDaemon } from "./serve.ts";
import { addCommands } from "./commands.ts";
import { addDoctor } from "./doctor.ts";
import { addHosts } from "./hosts.ts";
import { reportOf } from "./failure.ts";
import { addUninstall, type UninstallDeps } from "./uninstall.ts";
import type { ExitCode, Terminal } from "./terminal.ts";

export interface ProgramDeps extends UninstallDeps {
  readonly version: string;
  /** Loaded by `serve` alone: the other commands start without the weight of the daemon. */
  loadDaemon(): Promise<CreateDaemon>;
}

/** Runs the command that the arguments name. Never rejects: what went wrong is a line on stderr and the exit code. */
export async function runProgram(terminal: Terminal, deps: ProgramDeps): Promise<ExitCode> {
  let exitCode: ExitCode = 0;
  const program = createProgram(terminal, deps, (code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync(terminal.args, { from: "user" });
    return exitCode;
  } catch (error) {
    // Commander has said what it had to say; its code is 0 for help and version.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    const report = reportOf(error);
    terminal.stderr.write(report.text);
    return report.exitCode;
  }
}

/** Commander's words as the one line that all errors are. */
function usageError(text: string): string {
  const line = text
    .trim()
    .replace(/^error: /, "")
    .replaceAll(/\s*\n\s*/g, " ");
  return `p2p-mirror: ${line}${line.includes("(Did you mean") ? "" : "; see p2p-mirror --help"}`;
}

function createProgram(terminal: Terminal, deps: ProgramDeps, exit: (code: ExitCode) => void): Command {
  const program = new Command("p2p-mirror")
    .description("An image mirror on every node: nodes serve each other, upstream is asked once.")
    .version(deps.version, "-V, --version", "print the version")
    .helpOption("-h, --help", "print this help")
    .helpCommand("help [command]", "print the help of a command")
    .exitOverride()
    .configureOutput({
      writeOut: (text) => terminal.stdout.write(text),
      writeErr: (text) => terminal.stderr.write(text),
      outputError: (text, write) => write(`${usageError(text)}\n`),
    });

  addServe(program, terminal, deps, exit);
  addCommands(program, terminal);
  addHosts(program, terminal);
  addDoctor(program, terminal, exit);
  addUninstall(program, terminal, deps);
  program
    .command("version")
    .description("print the version")
    .action(() => terminal.stdout.write(`${deps.version}\n`));
  return program;
}

function addServe(
  program: Command,
  terminal: Terminal,
  deps: ProgramDeps,
  exit: (code: ExitCode) => void,
): void {
  const serve = program
    .command("serve")
    .description("run the mirror of this node")
    .option("--config <FILE>", "YAML file with these settings (default: P2P_MIRROR_CONFIG, else none)");
  addSettings(serve, MIRROR_SCHEMA);
  serve
    .addHelpText(
      "after",
      "\nEach setting is also a variable (P2P_MIRROR_CACHE_SIZE) and a key of the config file (cache_size).\nA flag counts before a variable, a variable before the file. Everything is in docs/configuration.md.",
    )
    .action(async () => {
      const { config }: { config?: string } = serve.opts();
      const run = await import("./serve.ts");
      const request = { flags: givenSettings(serve, MIRROR_SCHEMA), env: terminal.env, configPath: config };
      exit(await run.serve(request, terminal, deps));
    });
}
