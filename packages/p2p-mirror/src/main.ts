#!/usr/bin/env -S MALLOC_ARENA_MAX=1 node --max-semi-space-size=1 --single-threaded-gc --memory-saver-mode --heap-growing-percent=60 --no-incremental-marking
import { readFile } from "node:fs/promises";
import { runProgram } from "./cli/program.ts";
import type { CreateDaemon } from "./cli/serve.ts";
import type { Output } from "./cli/terminal.ts";

// The edge to the operating system, and the only file that touches `process`.

/** A reader that left (`p2p-mirror ls | head -1`) is no error: what is still written goes nowhere. */
function outputOf(stream: NodeJS.WriteStream): Output {
  stream.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
  });
  return {
    write: (text) => void (stream.writable && stream.write(text)),
    isTTY: stream.isTTY,
    stream,
  };
}

/**
 * The first signal asks for an end, the second forces it. Node's exit waits for its threads, and one that hangs in the
 * kernel (a dead disk) never comes back: a third signal does what it does to any program.
 */
function endSignal(stderr: Output): AbortSignal {
  const controller = new AbortController();
  const onSignal = (name: string): void => {
    if (controller.signal.aborted) {
      process.off("SIGINT", onSignal).off("SIGTERM", onSignal);
      stderr.write("p2p-mirror: forced to end\n");
      // As process 1 of a container a signal's own default action does nothing, so this is the only way out.
      process.exit(1);
    }
    controller.abort(new DOMException(`received ${name}`, "AbortError"));
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  return controller.signal;
}

async function readVersion(): Promise<string> {
  const manifest: unknown = JSON.parse(await readFile(new URL("../package.json", import.meta.url), "utf8"));
  const hasVersion = typeof manifest === "object" && manifest !== null && "version" in manifest;
  return hasVersion ? String(manifest.version) : "unknown";
}

async function loadDaemon(): Promise<CreateDaemon> {
  const { createDaemon } = await import("./daemon.ts");
  // Beside `src`, and beside what is built of it.
  const page = new URL("../page/", import.meta.url);
  return (config, deps) => createDaemon(config, { ...deps, page });
}

/** node:sqlite without a flag, and the rest of what the daemon is written for. */
const OLDEST_NODE = 24;

const stdout = outputOf(process.stdout);
const stderr = outputOf(process.stderr);

if (Number.parseInt(process.versions.node, 10) < OLDEST_NODE) {
  stderr.write(`p2p-mirror: this is Node.js ${process.versions.node}; run it with ${OLDEST_NODE} or newer\n`);
  process.exitCode = 1;
} else {
  process.exitCode = await runProgram(
    { args: process.argv.slice(2), env: process.env, stdout, stderr, signal: endSignal(stderr) },
    {
      version: await readVersion(),
      loadDaemon,
      loadRemoveData: async () => (await import("./daemon-data.ts")).removeData,
    },
  );
}
