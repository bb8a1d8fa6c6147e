import { randomBytes } from "node:crypto";
import { mkdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { parseMetrics, type Scrape } from "./metrics.ts";
import { freePort } from "./ports.ts";
import { type Ended, startProcess, type RigProcess, withoutProxies } from "./process.ts";
import { tempFolder } from "./temp.ts";

export interface MirrorOptions {
  /** In errors; default "mirror". */
  readonly name?: string;
  /** Run in this namespace, where it gets its usual ports; otherwise on loopback with free ones. */
  readonly node?: { readonly netns: string; readonly address: string };
  /** Default: a folder of its own, removed by close. */
  readonly dataDir?: string;
  /** One per accepted secret; see writeClusterSecret. Needed by nodes, whose address is not loopback. */
  readonly secretFiles?: readonly string[];
  /** HOST:PORT of other mirrors' p2pAddress. */
  readonly bootstrap?: readonly string[];
  /** Registry name -> URL of the upstream to ask for it. */
  readonly upstreams?: Readonly<Record<string, string>>;
  /** Path, default none. */
  readonly containerdSocket?: string;
  readonly access?: "public" | "open";
  /** Default "debug": the log is only shown when something goes wrong. */
  readonly logLevel?: string;
  /** Characters of it that are kept, the newest; default as of any process. */
  readonly logLimit?: number;
  /** More flags, after all others. */
  readonly flags?: readonly string[];
  /** A program of the same command line to run instead of main.ts. */
  readonly program?: string;
  /** Flags of Node itself. */
  readonly nodeFlags?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Milliseconds to wait for /readyz, default 20,000. */
  readonly readyMs?: number;
}

/** The daemon as a process of its own, started the way a person would. */
export interface Mirror extends AsyncDisposable {
  readonly name: string;
  readonly pid: number;
  readonly running: boolean;
  readonly dataDir: string;
  /** Base URL of the registry endpoint; on a node it is reachable inside of the node's network only. */
  readonly url: string;
  /** Base URL of the admin endpoint, reachable from this process. */
  readonly adminUrl: string;
  readonly peerAddress: string;
  readonly p2pAddress: string;
  log(): string;
  metrics(): Promise<Scrape>;
  /** Resolves when it is ready again after stop or kill: same ports, same data. */
  start(): Promise<void>;
  /** SIGTERM; resolves when it is gone, with how it ended. SIGKILL after `graceMs`, default 15,000. */
  stop(graceMs?: number): Promise<Ended>;
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>;
  /** Any signal, such as SIGSTOP. */
  signal(signal: NodeJS.Signals): void;
  /** Stops it and removes its data. */
  close(): Promise<void>;
}

const CHECKOUT = path.resolve(import.meta.dirname, "../..");
const MAIN = path.join(CHECKOUT, "packages/p2p-mirror/src/main.ts");
const PORTS = { registry: 24220, peer: 24221, p2p: 24222, admin: 24223 };

export async function startMirror(options: MirrorOptions = {}): Promise<Mirror> {
  const { node, name = "mirror" } = options;
  const home = await tempFolder("mirror");
  const dataDir = options.dataDir ?? path.join(home, "data");
  await mkdir(dataDir, { recursive: true });
  const ports = node === undefined ? await freePorts() : PORTS;
  const address = node?.address ?? "127.0.0.1";
  const listen = {
    registry: `127.0.0.1:${ports.registry}`,
    peer: `${address}:${ports.peer}`,
    p2p: `${address}:${ports.p2p}`,
    // Not on loopback there: this process looks at it from the outside.
    admin: `${address}:${ports.admin}`,
  };
  const argv = [
    process.execPath,
    "--conditions=@p2p-mirror/source",
    "--disable-warning=ExperimentalWarning",
    ...(options.nodeFlags ?? []),
    options.program ?? MAIN,
    "serve",
    ...Object.entries(listen).flatMap(([what, at]) => [`--${what}-listen`, at]),
    `--data-dir=${dataDir}`,
    `--containerd-socket=${options.containerdSocket ?? "none"}`,
    `--log-level=${options.logLevel ?? "debug"}`,
    ...(node === undefined ? [] : ["--advertise-address", node.address]),
    ...(options.access === undefined ? [] : ["--access", options.access]),
    ...(options.secretFiles ?? []).flatMap((file) => ["--cluster-secret-file", file]),
    ...(options.bootstrap ?? []).flatMap((peer) => ["--bootstrap", peer]),
    ...Object.entries(options.upstreams ?? {}).flatMap(([reg, url]) => ["--upstream", `${reg}=${url}`]),
    ...(options.flags ?? []),
  ];
  const adminUrl = `http://${listen.admin}`;

  let running: RigProcess | undefined;
  const start = async (): Promise<void> => {
    if (running?.running === true) return;
    const started = await startProcess({
      name,
      argv,
      cwd: CHECKOUT,
      netns: node?.netns,
      env: environment(options.env),
      ...(options.logLimit !== undefined && { logLimit: options.logLimit }),
    });
    running = started;
    try {
      await started.until("it is ready", () => isReady(adminUrl), { timeoutMs: options.readyMs ?? 20_000 });
    } catch (error) {
      started.kill("SIGKILL");
      await started.ended;
      throw error;
    }
  };
  const close = async (): Promise<void> => {
    await running?.stop(15_000);
    await rm(home, { recursive: true, force: true, maxRetries: 3 });
  };
  try {
    await start();
  } catch (error) {
    await close();
    throw error;
  }
  return {
    name,
    get pid() {
      return running?.pid ?? -1;
    },
    get running() {
      return running?.running === true;
    },
    dataDir,
    url: `http://${listen.registry}`,
    adminUrl,
    peerAddress: listen.peer,
    p2pAddress: listen.p2p,
    log: () => running?.log() ?? "",
    metrics: async () => parseMetrics(await (await fetch(`${adminUrl}/metrics`)).text()),
    start,
    stop: async (graceMs = 15_000) => (await running?.stop(graceMs)) ?? { code: null, signal: null },
    async kill() {
      running?.kill("SIGKILL");
      await running?.ended;
    },
    signal: (signal) => running?.kill(signal),
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** A file with a fresh secret, as `--cluster-secret-file` takes it. */
export async function writeClusterSecret(file: string): Promise<string> {
  await writeFile(file, `${randomBytes(32).toString("base64")}\n`, { mode: 0o600 });
  return file;
}

async function isReady(adminUrl: string): Promise<boolean> {
  const answer = await fetch(`${adminUrl}/readyz`, { signal: AbortSignal.timeout(2000) });
  await answer.body?.cancel();
  return answer.status === 200;
}

async function freePorts(): Promise<typeof PORTS> {
  const [registry = 0, peer = 0, p2p = 0, admin = 0] = await Promise.all([1, 2, 3, 4].map(() => freePort()));
  return { registry, peer, p2p, admin };
}

/** The settings of whoever runs the tests are none of the daemon's. */
const environment = (more: Readonly<Record<string, string>> = {}): NodeJS.ProcessEnv => ({
  // A mirror starts from the sources in half the time when the types were stripped before.
  NODE_COMPILE_CACHE: path.join(CHECKOUT, "node_modules/.cache/p2p-mirror-compiled"),
  ...Object.fromEntries(
    Object.entries(withoutProxies(process.env)).filter(([name]) => !/^(P2P_MIRROR_|TAP)/.test(name)),
  ),
  ...more,
});
