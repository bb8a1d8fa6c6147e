import type { Machine, MachineProcess } from "./machine.ts";

export interface DaemonOptions {
  readonly name: string;
  readonly machine: Machine;
  readonly argv: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /** Whether it does its work; default: as soon as it runs. */
  readonly ready?: () => Promise<boolean>;
}

/** A program of a node that is stopped and started as systemd would. */
export interface Daemon {
  readonly running: boolean;
  log(): string;
  /** Resolves when it is ready. */
  start(): Promise<void>;
  /** SIGTERM, or another; resolves when it is gone. */
  stop(signal?: NodeJS.Signals): Promise<void>;
  restart(signal?: NodeJS.Signals): Promise<void>;
  /** It does nothing until `thaw`, and connections to it stay. */
  freeze(): void;
  thaw(): void;
}

/** Not started yet. */
export function createDaemon(options: DaemonOptions): Daemon {
  const { name, machine, argv, env, ready } = options;
  let current: MachineProcess | undefined;
  const running = (): boolean => current?.process.running === true;
  const start = async (): Promise<void> => {
    if (running()) return;
    current = await machine.start(name, argv, env);
    if (ready !== undefined) await current.process.until("it is ready", ready, { timeoutMs: 60_000 });
  };
  const stop = async (signal: NodeJS.Signals = "SIGTERM"): Promise<void> => {
    if (current === undefined || !running()) return;
    process.kill(current.pid, signal);
    await current.process.ended;
  };
  return {
    get running() {
      return running();
    },
    log: () => current?.process.log() ?? "",
    start,
    stop,
    async restart(signal) {
      await stop(signal);
      await start();
    },
    freeze() {
      if (current !== undefined && running()) process.kill(current.pid, "SIGSTOP");
    },
    thaw() {
      if (current === undefined || !running()) return;
      process.kill(current.pid, "SIGCONT");
      // nsenter, which stops when its child does.
      current.process.kill("SIGCONT");
    },
  };
}
