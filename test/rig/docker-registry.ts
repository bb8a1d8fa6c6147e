import { mkdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Component } from "./components.ts";
import { freePort } from "./ports.ts";
import { startProcess, type RigProcess, withoutProxies } from "./process.ts";
import { tempFolder } from "./temp.ts";

export interface DockerRegistryOptions {
  /** docker-registry or distribution. */
  readonly component: Component;
  /** Address to listen on, default 127.0.0.1. */
  readonly address?: string;
  /** Default: a free one, kept over stop and start. */
  readonly port?: number;
  readonly netns?: string | undefined;
  /** Data of an earlier one to serve; default: a folder of its own, removed by close. */
  readonly dataDir?: string;
  /** Demands Basic authentication against this htpasswd file (bcrypt lines). */
  readonly htpasswd?: string;
  /** URL of another registry: this one is then its pull-through cache. */
  readonly remote?: string;
}

/** The reference registry as a real upstream. */
export interface DockerRegistry extends AsyncDisposable {
  /** http://address:port, as this process and the nodes of its network reach it. */
  readonly url: string;
  readonly host: string;
  readonly dataDir: string;
  readonly running: boolean;
  /** -1 while it does not run. */
  readonly pid: number;
  log(): string;
  /** Orderly end; `start` brings it back with the same data on the same port. */
  stop(): Promise<void>;
  kill(): Promise<void>;
  start(): Promise<void>;
  close(): Promise<void>;
}

export async function startDockerRegistry(options: DockerRegistryOptions): Promise<DockerRegistry> {
  const { component, netns } = options;
  const address = options.address ?? "127.0.0.1";
  const port = options.port ?? (netns === undefined ? await freePort(address) : 5000);
  const host = `${address}:${port}`;
  const home = await tempFolder("registry");
  const dataDir = options.dataDir ?? path.join(home, "data");
  await mkdir(dataDir, { recursive: true });
  const configFile = path.join(home, "config.yml");
  const config = {
    version: 0.1,
    log: { level: "info", formatter: "text", accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: dataDir }, delete: { enabled: true } },
    http: { addr: host, secret: "test" },
    ...(options.remote === undefined ? {} : { proxy: { remoteurl: options.remote } }),
    ...(options.htpasswd === undefined
      ? {}
      : { auth: { htpasswd: { realm: "test", path: options.htpasswd } } }),
  };
  // JSON is YAML.
  await writeFile(configFile, JSON.stringify(config));

  let running: RigProcess | undefined;
  const start = async (): Promise<void> => {
    if (running?.running === true) return;
    const started = await startProcess({
      name: component.name,
      argv: [
        component.bin(component.name === "distribution" ? "registry" : "docker-registry"),
        "serve",
        configFile,
      ],
      // It would look for a collector on this machine.
      env: { ...withoutProxies(component.env), OTEL_TRACES_EXPORTER: "none" },
      netns,
    });
    try {
      // 401 is an answer, too.
      await started.until("it answers", async () => {
        const answer = await fetch(`http://${host}/v2/`);
        await answer.body?.cancel();
        return answer.status === 200 || answer.status === 401;
      });
    } catch (error) {
      await started.stop();
      throw error;
    }
    running = started;
  };
  const close = async (): Promise<void> => {
    await running?.stop();
    await rm(home, { recursive: true, force: true });
  };
  try {
    await start();
  } catch (error) {
    await close();
    throw error;
  }
  return {
    url: `http://${host}`,
    host,
    dataDir,
    get running() {
      return running?.running === true;
    },
    get pid() {
      return running?.running === true ? running.pid : -1;
    },
    log: () => running?.log() ?? "",
    async stop() {
      await running?.stop();
    },
    async kill() {
      running?.kill("SIGKILL");
      await running?.ended;
    },
    start,
    close,
    [Symbol.asyncDispose]: close,
  };
}
