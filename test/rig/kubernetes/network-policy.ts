import { mkdir, readdir, readFile, realpath, symlink, writeFile } from "node:fs/promises";
import path from "node:path";
import type { Component } from "../components.ts";
import type { Components } from "../need.ts";
import { withoutProxies } from "../process.ts";
import { SERVICE_CIDR } from "./addresses.ts";
import type { Cluster } from "./cluster.ts";
import { createDaemon, type Daemon } from "./daemon.ts";
import type { KubernetesNode } from "./node.ts";

export const POLICY_COMPONENTS = ["network-policy", "iptables"] as const;

const FOLDER = "/opt/network-policy";
const CONFIG = `${FOLDER}/kubeconfig`;

/** Names as the controller calls them, and the programs of the nftables kind of iptables. */
const PROGRAMS = {
  iptables: "iptables-nft",
  "iptables-save": "iptables-nft-save",
  "iptables-restore": "iptables-nft-restore",
  ipset: "ipset",
} as const;

/**
 * Makes a node enforce the cluster's NetworkPolicies on its Pods, which no network plugin of the rig does: kube-router's
 * controller, on the node until its power is cut. Policies count some time after they were made.
 */
export async function enforcePolicies(
  { kubeconfig }: Pick<Cluster, "kubeconfig">,
  { machine, name }: KubernetesNode,
  components: Components,
): Promise<Daemon> {
  const iptables = components("iptables");
  const folder = machine.file(FOLDER);
  await mkdir(folder);
  for (const [called, program] of Object.entries(PROGRAMS)) {
    await symlink(iptables.bin(program), path.join(folder, called));
  }
  await writeFile(machine.file(CONFIG), await readFile(kubeconfig), { mode: 0o600 });
  const controller = createDaemon({
    name: "network-policy",
    machine,
    argv: [
      components("network-policy").bin("network-policy"),
      `--kubeconfig=${CONFIG}`,
      `--node=${name}`,
      `--services=${SERVICE_CIDR}`,
    ],
    env: {
      ...withoutProxies(iptables.env),
      PATH: [FOLDER, iptables.env["PATH"] ?? ""].join(path.delimiter),
      ...(await extensionsOf(iptables)),
    },
  });
  await controller.start();
  return controller;
}

/** Where the matches of iptables are when it is not installed. */
async function extensionsOf(iptables: Component): Promise<NodeJS.ProcessEnv> {
  const lib = path.join(path.dirname(await realpath(iptables.bin("iptables-nft"))), "../lib");
  for (const triplet of await readdir(lib)) {
    const folder = path.join(lib, triplet, "xtables");
    if (await readdir(folder).catch(() => undefined)) return { XTABLES_LIBDIR: folder };
  }
  return {};
}
