/** Where a command writes. `stream` is for libraries that draw on a terminal by themselves. */
export interface Output {
  write(text: string): void;
  readonly isTTY: boolean;
  readonly stream: NodeJS.WritableStream;
}

/** What a command sees of the process; made by main.ts alone. */
export interface Terminal {
  /** Without the program's name. */
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly stdout: Output;
  readonly stderr: Output;
  /** Aborts with the first SIGINT or SIGTERM. */
  readonly signal: AbortSignal;
}

/** 0: done. 1: it could not be done. 2: it was asked for wrongly (flags, environment, config file). */
export type ExitCode = 0 | 1 | 2;
