import { mkdir, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Component } from "../components.ts";
import { answersKubelet } from "../cri.ts";
import { exec } from "../exec.ts";
import { type HostsFile, writeHosts } from "../hosts.ts";
import { withoutProxies } from "../process.ts";
import { createDaemon, type Daemon } from "./daemon.ts";
import { startMachine, type Machine } from "./machine.ts";
import {
  CONTAINERD_PATHS,
  FILES,
  type ContainerdPaths,
  type Distribution,
  cniConfig,
  containerdConfig,
  kubeletConfig,
} from "./node-files.ts";

export interface NodeOptions {
  readonly name: string;
  /** From 0; decides the subnet of its Pods. */
  readonly index: number;
  readonly netns: string;
  readonly address: string;
  readonly home: string;
  readonly components: {
    readonly containerd: Component;
    readonly kubernetes: Component;
    readonly cni: Component;
    readonly catatonit: Component;
  };
  /** Text of kubelet's kubeconfig. */
  readonly kubeconfig: string;
  readonly sandboxImage: string;
  /** What the administrator has configured, by the registry's name. */
  readonly hosts: Readonly<Record<string, HostsFile>>;
  /** Of the Node object; those a kubelet may set. */
  readonly labels?: Readonly<Record<string, string>>;
  /** Whose paths containerd has; default kubeadm. */
  readonly distribution?: Distribution;
}

/** A node of a cluster: a machine with containerd and kubelet in their usual places, or those of a distribution. */
export interface KubernetesNode {
  readonly name: string;
  readonly address: string;
  readonly containerdVersion: string;
  readonly paths: ContainerdPaths;
  readonly machine: Machine;
  readonly containerd: Daemon;
  readonly kubelet: Daemon;
  /** `ctr` in containerd's namespace k8s.io. */
  ctr(args: readonly string[]): Promise<string>;
  /** Everything on it is killed; its disk stays. */
  cutPower(): Promise<void>;
  /** Boots it again and starts containerd and kubelet. */
  boot(): Promise<void>;
}

/** Makes a node with an empty disk and starts it; it registers itself, and is Ready some time later. */
export async function startNode(options: NodeOptions): Promise<KubernetesNode & AsyncDisposable> {
  const { name, address, netns, components } = options;
  const { containerd, kubernetes } = components;
  const paths = CONTAINERD_PATHS[options.distribution ?? "kubeadm"];
  await fillDisk(options, paths);
  const machine = await startMachine({
    name,
    netns,
    address,
    home: options.home,
    catatonit: components.catatonit,
  });
  const ctr = [containerd.bin("ctr"), "--address", paths.socket, "--namespace", "k8s.io"];
  const env = withoutProxies(containerd.env);
  const containerdDaemon = createDaemon({
    name: "containerd",
    machine,
    // As k3s starts it, too.
    argv: [
      containerd.bin("containerd"),
      `--config=${paths.config}`,
      `--address=${paths.socket}`,
      `--state=${paths.state}`,
      `--root=${paths.root}`,
    ],
    env,
    ready: () => answersKubelet(machine.file(paths.socket)),
  });
  const labels = Object.entries(options.labels ?? {}).map(([label, value]) => `${label}=${value}`);
  const kubelet = createDaemon({
    name: "kubelet",
    machine,
    argv: [
      kubernetes.bin("kubelet"),
      `--config=${FILES.kubelet}`,
      `--kubeconfig=${FILES.kubeconfig}`,
      `--hostname-override=${name}`,
      `--node-ip=${address}`,
      ...(labels.length === 0 ? [] : [`--node-labels=${labels.join(",")}`]),
    ],
    env: withoutProxies(kubernetes.env),
  });
  const startDaemons = async (): Promise<void> => {
    await containerdDaemon.start();
    await kubelet.start();
  };
  const self = {
    name,
    address,
    containerdVersion: containerd.version,
    paths,
    machine,
    containerd: containerdDaemon,
    kubelet,
    ctr: async (args: readonly string[]) => (await machine.exec([...ctr, ...args], { env })).stdout,
    cutPower: () => machine.cutPower(),
    async boot() {
      await machine.boot();
      await startDaemons();
    },
    [Symbol.asyncDispose]: () => machine.close(),
  };
  try {
    await startDaemons();
  } catch (error) {
    await machine.close();
    throw error;
  }
  return self;
}

/** Written before the machine boots: its /etc is not to be touched from outside then. */
async function fillDisk(options: NodeOptions, paths: ContainerdPaths): Promise<void> {
  const { home, components, index } = options;
  const files: Readonly<Record<string, string>> = {
    [paths.config]: containerdConfig(components.containerd.version, options.sandboxImage, paths.certsDir),
    [FILES.cni]: cniConfig(index),
    [FILES.kubelet]: kubeletConfig(paths.socket),
    [FILES.kubeconfig]: options.kubeconfig,
  };
  for (const [file, text] of Object.entries(files)) {
    await mkdir(path.join(home, path.dirname(file)), { recursive: true });
    await writeFile(path.join(home, file), text);
  }
  await mkdir(path.join(home, paths.certsDir), { recursive: true });
  for (const [registry, hosts] of Object.entries(options.hosts)) {
    await writeHosts(path.join(home, paths.certsDir), registry, hosts);
  }
  const plugins = path.join(home, "opt/cni/bin");
  await mkdir(plugins, { recursive: true });
  for (const plugin of ["ptp", "host-local", "loopback"]) {
    await symlink(components.cni.bin(plugin), path.join(plugins, plugin));
  }
}

/** Gives a network namespace the routes of a node: to Services, and to the Pods of all nodes. */
export async function addRoutes(
  netns: string,
  routes: readonly { readonly to: string; readonly via: string }[],
): Promise<void> {
  await exec(["ip", "netns", "exec", netns, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]);
  for (const { to, via } of routes) await exec(["ip", "-n", netns, "route", "add", to, "via", via]);
}
