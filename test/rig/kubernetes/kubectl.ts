import type { Component } from "../components.ts";
import { exec, type ExecOptions, tryExec, type ExecResult } from "../exec.ts";
import { startProcess, withoutProxies } from "../process.ts";

/** kubectl against one cluster. */
export interface Kubectl {
  /** Gives standard output; throws RigError with what was said when it fails. */
  run(args: readonly string[], options?: ExecOptions): Promise<string>;
  /** The same for what may fail. */
  attempt(args: readonly string[], options?: ExecOptions): Promise<ExecResult>;
  /** Parsed JSON of `kubectl get`. */
  get<T>(args: readonly string[]): Promise<T>;
  /** Applies objects, created when they are not there. */
  apply(...objects: readonly object[]): Promise<void>;
  /** `kubectl port-forward`, until it is disposed of. */
  forward(args: readonly string[], port: number): Promise<Forward>;
}

export interface Forward extends AsyncDisposable {
  /** Without a path: `http://127.0.0.1:port`. */
  readonly url: string;
}

/** @param home folder for its caches */
export function createKubectl(kubernetes: Component, kubeconfig: string, home: string): Kubectl {
  const env = { ...withoutProxies(kubernetes.env), KUBECONFIG: kubeconfig, HOME: home };
  const argv = (args: readonly string[]): string[] => [kubernetes.bin("kubectl"), ...args];
  const run = async (args: readonly string[], options: ExecOptions = {}): Promise<string> =>
    (await exec(argv(args), { env, ...options })).stdout;
  return {
    run,
    attempt: (args, options = {}) => tryExec(argv(args), { env, ...options }),
    get: async (args) => JSON.parse(await run(["get", "-o", "json", ...args])),
    async apply(...objects) {
      const list = { apiVersion: "v1", kind: "List", items: objects };
      await run(["apply", "--filename=-"], { input: JSON.stringify(list) });
    },
    async forward(args, port) {
      const command = argv(["port-forward", ...args, `:${port}`]);
      const process = await startProcess({ name: "kubectl port-forward", argv: command, env });
      const address = await process.until(
        "it listens",
        () => /^Forwarding from (127\.0\.0\.1:\d+) /m.exec(process.log())?.[1],
      );
      return { url: `http://${address}`, [Symbol.asyncDispose]: () => process[Symbol.asyncDispose]() };
    },
  };
}
