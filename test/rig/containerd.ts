import { mkdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Component } from "./components.ts";
import { containerdConfig, type ContainerdSettings } from "./containerd-config.ts";
import { answersKubelet } from "./cri.ts";
import { exec, type ExecResult } from "./exec.ts";
import { startProcess, type RigProcess, withoutProxies } from "./process.ts";
import { tempFolder } from "./temp.ts";

export interface ContainerdOptions extends ContainerdSettings {
  /** One of the containerd-… components. */
  readonly component: Component;
  /** Network namespace it runs in; its socket is reached by its path from anywhere. */
  readonly netns?: string | undefined;
}

export interface Containerd extends AsyncDisposable {
  readonly version: string;
  /** Path of the gRPC socket (containerd's services and CRI). */
  readonly socket: string;
  readonly root: string;
  /** Blobs lie in `<contentDir>/blobs/sha256/<hex>`. */
  readonly contentDir: string;
  /** Where its hosts.toml files are read from, at every pull; see writeHosts. */
  readonly certsDir: string;
  /** Its config.toml. */
  readonly configFile: string;
  readonly pid: number;
  log(): string;
  /** How ctr is run in its namespace k8s.io, for who starts it himself; it needs containerd's network and `env`. */
  ctrArgv(args: readonly string[]): string[];
  readonly env: NodeJS.ProcessEnv;
  /** Runs ctr in containerd's namespace k8s.io (or another) and in its network; throws if it fails. */
  ctr(args: readonly string[], options?: CtrOptions): Promise<ExecResult>;
  /** `ctr image pull` by certsDir, with unpack. */
  pull(reference: string, args?: readonly string[]): Promise<ExecResult>;
  /** SIGKILL, as a crash. */
  kill(): Promise<void>;
  /** Starts it again on the same data: after kill, or after a stop in between. */
  restart(): Promise<void>;
  /** Stops it and removes all its data. */
  close(): Promise<void>;
}

export interface CtrOptions {
  readonly namespace?: string;
  readonly signal?: AbortSignal;
}

/** Starts a containerd of its own: data, sockets and configuration in one temporary folder, nothing of the system. */
export async function startContainerd(options: ContainerdOptions): Promise<Containerd> {
  const { component, netns } = options;
  // Short: the path of a Unix socket holds 107 bytes at most.
  const home = await tempFolder("ctd");
  const socket = path.join(home, "c.sock");
  const root = path.join(home, "root");
  const certsDir = options.certsDir ?? path.join(home, "certs.d");
  const configFile = path.join(home, "config.toml");
  await mkdir(certsDir, { recursive: true });
  await writeFile(configFile, containerdConfig(component.version, home, { ...options, certsDir }));
  const env = withoutProxies(component.env);

  const launch = async (): Promise<RigProcess> => {
    const started = await startProcess({
      name: component.name,
      argv: [component.bin("containerd"), "--config", configFile],
      env,
      netns,
      ownMounts: true,
    });
    try {
      await started.until("it answers on its socket", () => answersKubelet(socket), { timeoutMs: 30_000 });
    } catch (error) {
      await started.stop();
      throw error;
    }
    return started;
  };
  const plainArgv = (args: readonly string[], namespace = "k8s.io"): string[] =>
    [component.bin("ctr"), "--address", socket, "--namespace", namespace].concat(args);
  const ctrArgv = (args: readonly string[], namespace?: string): string[] => [
    ...(netns === undefined ? [] : ["ip", "netns", "exec", netns]),
    ...plainArgv(args, namespace),
  ];

  let running: RigProcess;
  try {
    running = await launch();
  } catch (error) {
    await rm(home, { recursive: true, force: true });
    throw error;
  }

  const self: Containerd = {
    version: component.version,
    socket,
    root,
    contentDir: path.join(root, "io.containerd.content.v1.content"),
    certsDir,
    configFile,
    get pid() {
      return running.pid;
    },
    log: () => running.log(),
    ctrArgv: (args) => plainArgv(args),
    env,
    ctr: (args, { namespace, signal } = {}) => exec(ctrArgv(args, namespace), { env, signal }),
    // In 1.x the client resolves and fetches, so that ctr itself has to know the hosts.
    pull: (reference, args = []) => self.ctr(["image", "pull", "--hosts-dir", certsDir, ...args, reference]),
    async kill() {
      running.kill("SIGKILL");
      await running.ended;
    },
    async restart() {
      await running.stop();
      running = await launch();
    },
    async close() {
      await running.stop();
      await rm(home, { recursive: true, force: true, maxRetries: 3 });
    },
    [Symbol.asyncDispose]: () => self.close(),
  };
  return self;
}
