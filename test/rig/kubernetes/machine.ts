import { randomUUID } from "node:crypto";
import { access, mkdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Component } from "../components.ts";
import { cacheFolder } from "../components/go.ts";
import { exec, type ExecOptions, type ExecResult } from "../exec.ts";
import { startProcess, type RigProcess, withoutProxies } from "../process.ts";
import { createCgroups } from "./cgroups.ts";

export interface MachineOptions {
  readonly name: string;
  readonly netns: string;
  readonly address: string;
  /** A folder for its disk; removed by close. */
  readonly home: string;
  readonly catatonit: Component;
}

/** A program that runs on a machine and can be signalled from here. */
export interface MachineProcess {
  readonly process: RigProcess;
  /** As this process sees it. */
  readonly pid: number;
}

/**
 * A machine made of namespaces: own processes, mounts, network, host name, IPC and cgroups; own /etc, /var, /opt and
 * /run; /usr, /tmp, kernel and hardware are those of the machine below.
 */
export interface Machine extends AsyncDisposable {
  readonly name: string;
  readonly netns: string;
  readonly address: string;
  readonly running: boolean;
  /** Path by which this process reaches a file of the running machine. */
  file(path: string): string;
  /** Runs a command on it to its end. */
  exec(argv: readonly string[], options?: ExecOptions): Promise<ExecResult>;
  /** Starts a program on it that runs until it is stopped, or the power is cut. */
  start(name: string, argv: readonly string[], env: NodeJS.ProcessEnv): Promise<MachineProcess>;
  boot(): Promise<void>;
  /** Every process is killed and every mount gone at once; /etc, /var and /opt stay. */
  cutPower(): Promise<void>;
  close(): Promise<void>;
}

/** What kubelet wants of the kernel. It writes only what differs, and only to files of the machine. */
const SYSCTLS: Readonly<Record<string, string>> = {
  "vm/overcommit_memory": "1",
  "vm/panic_on_oom": "0",
  "kernel/panic": "10",
  "kernel/panic_on_oops": "1",
  "kernel/keys/root_maxkeys": "1000000",
  "kernel/keys/root_maxbytes": "25000000",
};

/** Where the programs that are run on machines come from. */
export const PROGRAMS = [path.resolve(import.meta.dirname, "../../.."), cacheFolder()];

const BOOT = path.join(import.meta.dirname, "boot.sh");

/** Puts itself into the cgroups named before "--", then becomes what comes after it. */
const INTO_CGROUPS = 'until [ "$1" = -- ]; do echo 0 >"$1"; shift; done; shift; exec "$@"';

/** Makes a machine with an empty disk, and boots it. */
export async function startMachine(options: MachineOptions): Promise<Machine> {
  const { name, netns, address, home, catatonit } = options;
  await makeDisk(home, name, address);
  const cgroups = await createCgroups(name);
  const inCgroups = ["sh", "-c", INTO_CGROUPS, "sh", ...cgroups.procsFiles, "--"];
  const env = withoutProxies(catatonit.env);
  let running: { readonly outer: RigProcess; readonly pid: number } | undefined;

  const enter = (): string[] => {
    if (running === undefined) throw new TypeError(`${name} does not run`);
    const namespaces = ["mount", "uts", "ipc", "net", "pid", "cgroup"].map((one) => `--${one}`);
    return [...inCgroups, "nsenter", "--target", String(running.pid), ...namespaces, "--"];
  };
  const boot = async (): Promise<void> => {
    await cgroups.clear();
    await writeFile(path.join(home, "proc/sys/kernel/random/boot_id"), `${randomUUID()}\n`);
    const namespaces = ["mount", "uts", "ipc", "pid", "cgroup"].map((one) => `--${one}`);
    const unshare = ["unshare", ...namespaces, "--fork", "--kill-child", "--"];
    const outer = await startProcess({
      name,
      argv: inCgroups.concat(["nsenter", `--net=/run/netns/${netns}`, "--"], unshare, [
        "sh",
        BOOT,
        home,
        name,
        catatonit.bin("catatonit"),
        ...PROGRAMS,
      ]),
      env,
    });
    const pid = await outer.until("it has booted", async () => {
      const first = await firstChild(outer.pid);
      await access(`/proc/${first}/root/run/booted`);
      return first;
    });
    running = { outer, pid };
  };
  const cutPower = async (): Promise<void> => {
    if (running === undefined) return;
    const { outer, pid } = running;
    running = undefined;
    process.kill(pid, "SIGKILL");
    await outer.ended;
  };
  const close = async (): Promise<void> => {
    await cutPower();
    await cgroups.remove();
    await rm(home, { recursive: true, force: true, maxRetries: 3 });
  };
  try {
    await boot();
  } catch (error) {
    await close();
    throw error;
  }
  return {
    name,
    netns,
    address,
    get running() {
      return running !== undefined;
    },
    file: (file) => path.join(`/proc/${running?.pid ?? "none"}/root`, file),
    exec: (argv, execOptions = {}) => exec([...enter(), ...argv], { env, ...execOptions }),
    async start(program, argv, programEnv) {
      const started = await startProcess({
        name: `${program} on ${name}`,
        argv: [...enter(), ...argv],
        env: programEnv,
      });
      // nsenter stays outside as the parent, and passes no signal on.
      const pid = await started.until("it runs", () => firstChild(started.pid));
      return { process: started, pid };
    },
    boot,
    cutPower,
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function makeDisk(home: string, name: string, address: string): Promise<void> {
  for (const folder of ["below", "etc", "etc.work", "opt", "var/lib", "var/log", "var/tmp"]) {
    await mkdir(path.join(home, folder), { recursive: true });
  }
  await symlink("/run", path.join(home, "var/run"));
  await symlink("/run/lock", path.join(home, "var/lock"));
  const files: Record<string, string> = {
    "etc/hostname": `${name}\n`,
    "etc/hosts": `127.0.0.1 localhost\n${address} ${name}\n`,
    "etc/machine-id": `${randomUUID().replaceAll("-", "")}\n`,
    // Nobody answers there, and at once: these machines have no internet.
    "etc/resolv.conf": "nameserver 127.0.0.1\n",
  };
  for (const [file, value] of Object.entries(SYSCTLS)) files[`proc/sys/${file}`] = `${value}\n`;
  await mkdir(path.join(home, "proc/sys/kernel/random"), { recursive: true });
  for (const [file, text] of Object.entries(files)) {
    await mkdir(path.join(home, path.dirname(file)), { recursive: true });
    await writeFile(path.join(home, file), text);
  }
}

async function firstChild(pid: number): Promise<number | undefined> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8");
  const [first = ""] = children.trim().split(" ");
  return first === "" ? undefined : Number(first);
}
