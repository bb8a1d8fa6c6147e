import { readFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { MissingError, RigError } from "./errors.ts";
import { exec, type ExecOptions, type ExecResult, tryExec } from "./exec.ts";
import { isAlive, type Lock, tryLock } from "./lock.ts";
import { shapeDevice, type ThinPath } from "./netns-shaping.ts";

/** Rates as tc takes them ("200mbit"); undefined: unlimited. */
export interface LinkRates {
  /** From the node into the network. */
  readonly egress?: string | undefined;
  /** From the network to the node. */
  readonly ingress?: string | undefined;
  /** Paths to single addresses that are thinner than `egress`. What they hold back never left the interface. */
  readonly egressTo?: readonly ThinPath[] | undefined;
}

export interface Counters {
  readonly rxBytes: number;
  readonly txBytes: number;
  /** As the kernel hands them over: one may hold what becomes several frames, and has one header then. */
  readonly txPackets: number;
}

export interface NetworkNode {
  /** Name of the network namespace, for `ip netns exec`. */
  readonly netns: string;
  readonly address: string;
  /** Of TCP, "cubic" or "reno": part of any figure measured here. */
  readonly congestionControl: string;
  exec(argv: readonly string[], options?: ExecOptions): Promise<ExecResult>;
  /** Bytes on the wire of the node's one interface, Ethernet headers included; rx is what came to the node. */
  counters(): Promise<Counters>;
  /** Changes the rates of a running network; undefined removes a limit. */
  shape(rates: LinkRates): Promise<void>;
  /**
   * Packets from and to the node that are longer are lost on the way, and nobody is told: a tunnel that has a smaller MTU than
   * its ends. The node sends packets as they are on a wire then, one by one.
   */
  losePacketsAbove(bytes: number): Promise<void>;
}

export interface NetworkOptions {
  /** How many nodes, 1 to 200. */
  readonly nodes: number;
  /** The same for all nodes, or by index. */
  readonly rates?: LinkRates | ((index: number) => LinkRates);
}

/** Nodes on one Ethernet segment, reachable from this process at their addresses. */
export interface Network extends AsyncDisposable {
  readonly nodes: readonly NetworkNode[];
  /** `10.213.x.0/24`. */
  readonly subnet: string;
  /** Where the nodes reach a server of this process (which must listen on it or on all addresses). */
  readonly hostAddress: string;
  /** Removes everything. Processes must be stopped first; what still runs in a namespace is killed. */
  close(): Promise<void>;
}

/** Names start with this, the pid and its start time, so that what a crash left behind can be told and removed. */
const PREFIX = "p2pm";
const INTERFACE = "eth0";
const BRIDGE = "br0";

let counter = 0;

const missing = (reason: string): MissingError =>
  new MissingError(
    "PRIVILEGE_MISSING",
    "network namespaces",
    reason,
    "run as root on Linux with iproute2, outside of a container or in a privileged one",
  );

/** Throws MissingError PRIVILEGE_MISSING where namespaces cannot be made. */
export async function probeNetworks(): Promise<void> {
  if (process.platform !== "linux") throw missing(`this is ${process.platform}`);
  if (process.getuid?.() !== 0) throw missing("this process is not root");
  const name = await newName("probe");
  const added = await tryExec(["ip", "netns", "add", name]).catch(() => undefined);
  if (added === undefined) throw missing("the command ip is not there");
  if (added.code !== 0) throw missing(added.stderr.trim());
  const linked = await tryExec(["ip", "-n", name, "link", "add", BRIDGE, "type", "bridge"]);
  await exec(["ip", "netns", "delete", name]);
  if (linked.code !== 0) throw missing(linked.stderr.trim());
}

export async function createNetwork(options: NetworkOptions): Promise<Network> {
  await removeLeftOvers();
  const claim = await claimSubnet();
  const hostLink = `${PREFIX}${claim.index}`;
  const made: string[] = [];
  const close = async (): Promise<void> => {
    try {
      // By itself it would go with the namespace of its other end, but only some time later.
      await tryExec(["ip", "link", "delete", hostLink]);
      for (const name of made.splice(0).toReversed()) await removeNamespace(name);
    } finally {
      await claim.lock.release();
    }
  };
  try {
    // The bridge lives in a namespace of its own: on a host with a firewall for its containers, frames of a bridge in
    // the host's namespace would be dropped.
    const lan = await newName("lan");
    made.push(lan);
    await addNamespace(lan);
    await exec(["ip", "-n", lan, "link", "add", BRIDGE, "type", "bridge"]);
    await exec(["ip", "-n", lan, "link", "set", BRIDGE, "up"]);
    const hostAddress = `${claim.prefix}.1`;
    await exec(["ip", "link", "add", hostLink, "type", "veth", "peer", "name", "host", "netns", lan]);
    await plug(lan, "host");
    await exec(["ip", "address", "add", `${hostAddress}/24`, "dev", hostLink]);
    await exec(["ip", "link", "set", hostLink, "up"]);

    const nodes: NetworkNode[] = [];
    for (let index = 0; index < options.nodes; index++) {
      const netns = await newName(`n${index}`);
      made.push(netns);
      const address = `${claim.prefix}.${index + 2}`;
      const rates = typeof options.rates === "function" ? options.rates(index) : options.rates;
      nodes.push(await addNode({ netns, lan, port: `n${index}`, address }, rates ?? {}));
    }
    return {
      nodes,
      subnet: `${claim.prefix}.0/24`,
      hostAddress,
      close,
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await close().catch(() => undefined);
    throw error;
  }
}

async function addNode(
  at: { netns: string; lan: string; port: string; address: string },
  rates: LinkRates,
): Promise<NetworkNode> {
  const { netns, lan, port, address } = at;
  await addNamespace(netns);
  const congestionControl = await chooseCongestionControl(netns);
  await exec([
    "ip",
    "-n",
    lan,
    "link",
    "add",
    port,
    "type",
    "veth",
    "peer",
    "name",
    INTERFACE,
    "netns",
    netns,
  ]);
  await plug(lan, port);
  await exec(["ip", "-n", netns, "address", "add", `${address}/24`, "dev", INTERFACE]);
  await exec(["ip", "-n", netns, "link", "set", INTERFACE, "up"]);
  const node: NetworkNode = {
    netns,
    address,
    congestionControl,
    exec: (argv, execOptions) => exec(["ip", "netns", "exec", netns, ...argv], execOptions),
    counters: async () => {
      const { stdout } = await exec(["ip", "-n", netns, "-s", "-j", "link", "show", INTERFACE]);
      return parseCounters(stdout);
    },
    shape: async (wanted) => {
      await shapeDevice(netns, INTERFACE, { rate: wanted.egress, paths: wanted.egressTo });
      await shapeDevice(lan, port, { rate: wanted.ingress });
    },
    losePacketsAbove: async (bytes) => {
      // What the kernel has not cut yet would not be measured.
      await exec(["ip", "-n", netns, "link", "set", INTERFACE, "gso_max_segs", "1"]);
      await exec(["ip", "-n", lan, "link", "set", port, "mtu", String(bytes)]);
    },
  };
  await node.shape(rates);
  return node;
}

async function addNamespace(name: string): Promise<void> {
  await exec(["ip", "netns", "add", name]);
  await exec(["ip", "-n", name, "link", "set", "lo", "up"]);
}

/**
 * bbr, where it is the host's default, measures a path that does not exist here. cubic is what most hosts run; a host
 * that does not allow it to others (a setting of the whole machine, so not ours to change) allows reno at least.
 */
async function chooseCongestionControl(netns: string): Promise<string> {
  const tcp = "/proc/sys/net/ipv4/tcp";
  const file = `${tcp}_congestion_control`;
  // And what one connection learned of the path is forgotten with it: no run is faster for the one before.
  const choose = `echo 1 >${tcp}_no_metrics_save; echo cubic >${file} || echo reno >${file}; cat ${file}`;
  const { stdout } = await tryExec(["ip", "netns", "exec", netns, "sh", "-c", choose]);
  return stdout.trim();
}

async function plug(lan: string, port: string): Promise<void> {
  await exec(["ip", "-n", lan, "link", "set", port, "master", BRIDGE]);
  await exec(["ip", "-n", lan, "link", "set", port, "up"]);
}

async function removeNamespace(name: string): Promise<void> {
  // A namespace lives on under its last process, and its links with it.
  const { stdout } = await tryExec(["ip", "netns", "pids", name]);
  for (const pid of stdout.split("\n").map(Number)) {
    if (pid > 1) tryKill(pid);
  }
  const deleted = await tryExec(["ip", "netns", "delete", name]);
  if (deleted.code !== 0 && !/No such file/.test(deleted.stderr)) {
    throw new RigError("COMMAND_FAILED", `namespace ${name} stays: ${deleted.stderr.trim()}`);
  }
}

function tryKill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It ended by itself in between.
  }
}

/** Removes namespaces whose owner is gone, whatever its end was. */
async function removeLeftOvers(): Promise<void> {
  const { stdout } = await exec(["ip", "netns", "list"]);
  for (const line of stdout.split("\n")) {
    const match = /^(p2pm\.(\d+)\.(\d+)\.\S+)/.exec(line);
    if (!match) continue;
    const [, name = "", pid = "", started = ""] = match;
    if (isAlive(Number(pid)) && (await startOf(Number(pid))) === started) continue;
    // Several processes may be at this at once.
    await removeNamespace(name).catch(() => undefined);
  }
}

async function newName(what: string): Promise<string> {
  const number = ++counter;
  return `${PREFIX}.${process.pid}.${await startOf(process.pid)}.${number}.${what}`;
}

/** Start time of a process in clock ticks since boot: with the pid it names a process for good. */
async function startOf(pid: number): Promise<string> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  // The second field, the command in parentheses, may hold anything; the start time is the 20th after it.
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19] ?? "0";
}

interface Claim {
  readonly index: number;
  readonly prefix: string;
  readonly lock: Lock;
}

/** A /24 that no interface of this host has and no other run has claimed. */
async function claimSubnet(): Promise<Claim> {
  const used = new Set(
    Object.values(os.networkInterfaces()).flatMap((list) => (list ?? []).map((one) => one.address)),
  );
  const first = process.pid % 254;
  for (let tried = 0; tried < 254; tried++) {
    const index = 1 + ((first + tried) % 254);
    const prefix = `10.213.${index}`;
    if (used.has(`${prefix}.1`)) continue;
    const lock = await tryLock(path.join(os.tmpdir(), "p2p-mirror-rig", `subnet-${index}.lock`));
    if (lock !== undefined) return { index, prefix, lock };
  }
  throw new RigError("COMMAND_FAILED", "every subnet of 10.213.0.0/16 is taken");
}

function parseCounters(json: string): Counters {
  const list: unknown = JSON.parse(json);
  const link: unknown = Array.isArray(list) ? list[0] : undefined;
  const stats = field(link, "stats64");
  const rxBytes = field(field(stats, "rx"), "bytes");
  const txBytes = field(field(stats, "tx"), "bytes");
  const txPackets = field(field(stats, "tx"), "packets");
  if (typeof rxBytes !== "number" || typeof txBytes !== "number" || typeof txPackets !== "number") {
    throw new RigError("UNEXPECTED_ANSWER", `no counters in ${json.slice(0, 200)}`);
  }
  return { rxBytes, txBytes, txPackets };
}

const field = (value: unknown, name: string): unknown =>
  typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
