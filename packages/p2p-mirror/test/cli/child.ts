import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import type { Test } from "tap";

const MAIN = join(import.meta.dirname, "../../src/main.ts");

/** A real p2p-mirror process. What it writes is kept; it is killed when the test ends, if it still lives. */
export interface Child {
  readonly process: ChildProcess;
  /** The exit code, or the name of the signal that ended it. */
  readonly ended: Promise<number | string>;
  stdout(): string;
  stderr(): string;
  /** Resolves when stderr matches; rejects when the process ends before. */
  saw(pattern: RegExp): Promise<void>;
}

export function startChild(
  t: Test,
  args: readonly string[],
  options: { env?: Record<string, string>; nodeArgs?: readonly string[]; main?: string } = {},
): Child {
  const nodeArgs = options.nodeArgs ?? [
    "--conditions=@p2p-mirror/source",
    "--disable-warning=ExperimentalWarning",
  ];
  const child = spawn(process.execPath, [...nodeArgs, options.main ?? MAIN, ...args], {
    // Nothing of the surroundings: no proxies, no NODE_OPTIONS of the test runner.
    env: { PATH: process.env["PATH"] ?? "", ...options.env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const text = { stdout: "", stderr: "" };
  child.stdout.on("data", (chunk: Buffer) => (text.stdout += chunk.toString("utf8")));
  child.stderr.on("data", (chunk: Buffer) => (text.stderr += chunk.toString("utf8")));
  // `close` comes when the outputs are read to their end, `exit` may come before.
  const ended = once(child, "close").then(([code, signal]: unknown[]) =>
    typeof code === "number" ? code : String(signal),
  );
  t.teardown(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
    await ended;
  });
  const saw = (pattern: RegExp): Promise<void> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        if (!pattern.test(text.stderr)) return;
        child.stderr.off("data", look);
        resolve();
      };
      child.stderr.on("data", look);
      look();
      void ended.then((end) => reject(new Error(`ended (${end}) before ${pattern}: ${text.stderr}`)));
    });
  return { process: child, ended, stdout: () => text.stdout, stderr: () => text.stderr, saw };
}

/** Arguments of a mirror by itself: free ports, a directory of its own, no containerd. */
export const loneMirror = (dir: string): string[] =>
  ["serve", "--registry-listen=:0", "--peer-listen=:0", "--p2p-listen=:0", "--admin-listen=:0"].concat(
    "--containerd-socket=none",
    `--data-dir=${dir}`,
  );

/** The URLs that a mirror logs when it is ready. */
export async function readyUrls(child: Child): Promise<{ registry: string; admin: string }> {
  await child.saw(/"msg":"ready"/);
  const [, registry = "", admin = ""] = /"registry":"([^"]+)","admin":"([^"]+)"/.exec(child.stderr()) ?? [];
  return { registry, admin };
}
