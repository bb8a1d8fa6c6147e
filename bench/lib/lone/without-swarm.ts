/** The mirror as its main.ts runs it, but its flights work alone: what `bench lone` compares the mirror with. */
import { createDaemon } from "../../../packages/p2p-mirror/src/daemon.ts";
import { runProgram } from "../../../packages/p2p-mirror/src/cli/program.ts";

const end = new AbortController();
for (const name of ["SIGINT", "SIGTERM"] as const) process.once(name, () => end.abort());

process.exitCode = await runProgram(
  {
    args: process.argv.slice(2),
    env: process.env,
    stdout: { write: (text) => void process.stdout.write(text), isTTY: false, stream: process.stdout },
    stderr: { write: (text) => void process.stderr.write(text), isTTY: false, stream: process.stderr },
    signal: end.signal,
  },
  {
    version: "without swarm",
    loadDaemon: async () => (config, deps) => createDaemon(config, { ...deps, alone: true }),
    loadRemoveData: async () => (await import("../../../packages/p2p-mirror/src/daemon-data.ts")).removeData,
  },
);
