import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { RigError } from "./errors.ts";
import { until } from "./until.ts";

export interface DeafListener extends AsyncDisposable {
  /** On 127.0.0.1. */
  readonly port: number;
  /** Whether SYNs are dropped now: some of the connections that were made here still wait. */
  readonly full: boolean;
}

/**
 * A port at which connections are neither taken nor refused, as at a dead machine's address: a process that listens and
 * never accepts, with a backlog so full that the kernel drops SYNs.
 */
export async function deafListener(): Promise<DeafListener> {
  const script = `
    const server = require("node:net").createServer();
    server.listen({ port: 0, host: "127.0.0.1", backlog: 1 }, () => {
      require("node:fs").writeSync(1, String(server.address().port) + "\\n");
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    });`;
  await using stack = new AsyncDisposableStack();
  const child = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
  stack.defer(async () => {
    child.kill("SIGKILL");
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  });
  let line = "";
  child.stdout.on("data", (chunk: Buffer) => (line += chunk.toString()));
  await until("the listener has said its port", () => line.endsWith("\n"));
  const port = Number(line);
  if (!Number.isInteger(port)) throw new RigError("UNEXPECTED_ANSWER", `no port: ${line}`);
  const fillers = Array.from({ length: 6 }, () => connect(port, "127.0.0.1").on("error", () => undefined));
  stack.defer(() => {
    for (const filler of fillers) filler.destroy();
  });
  await until("the backlog takes the first", () => fillers.some((filler) => !filler.connecting));
  const running = stack.move();
  return {
    port,
    get full() {
      return fillers.some((filler) => filler.connecting);
    },
    [Symbol.asyncDispose]: () => running.disposeAsync(),
  };
}
