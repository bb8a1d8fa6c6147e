import { formatBytes, shortDigest } from "./format.ts";
import type { Output } from "./terminal.ts";

/** One object on its way. */
export interface ProgressItem {
  advance(bytes: number): void;
  done(): void;
}

/** Shows objects on their way. `end` must be called, also after a failure: the terminal gets its cursor back. */
export interface Progress {
  add(digest: string, size: number): ProgressItem;
  end(): void;
}

/** Bars on a terminal, a line for each finished object elsewhere. `now` in milliseconds. */
export async function createProgress(output: Output, now: () => number): Promise<Progress> {
  return output.isTTY ? createBars(output) : createLines(output, now);
}

function createLines(output: Output, now: () => number): Progress {
  return {
    add: (digest, size) => {
      const started = now();
      return {
        advance: () => undefined,
        done: () => {
          const seconds = ((now() - started) / 1000).toFixed(2);
          output.write(`${shortDigest(digest)} ${formatBytes(size)} in ${seconds} s\n`);
        },
      };
    },
    end: () => undefined,
  };
}

async function createBars(output: Output): Promise<Progress> {
  const { default: cliProgress } = await import("cli-progress");
  const bars = new cliProgress.MultiBar({
    stream: output.stream,
    format: "{name} {bar} {percentage}% {received} of {size}",
    barCompleteChar: "=",
    barIncompleteChar: " ",
    barsize: 30,
    hideCursor: true,
    // Signals are main.ts's business.
    gracefulExit: false,
    emptyOnZero: true,
    fps: 10,
  });
  return {
    add: (digest, size) => {
      const payload = { name: shortDigest(digest), size: formatBytes(size) };
      const bar = bars.create(size, 0, { ...payload, received: formatBytes(0) });
      let received = 0;
      return {
        advance: (bytes) => {
          received += bytes;
          bar.update(received, { ...payload, received: formatBytes(received) });
        },
        done: () => bar.stop(),
      };
    },
    end: () => bars.stop(),
  };
}
