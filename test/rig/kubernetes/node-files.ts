import { DNS_ADDRESS, podSubnet } from "./addresses.ts";

/** Where a node has what of containerd's. */
export interface ContainerdPaths {
  readonly config: string;
  /** Where it looks for hosts.toml files. */
  readonly certsDir: string;
  readonly socket: string;
  readonly root: string;
  readonly state: string;
}

const rancher = (distribution: string): ContainerdPaths => ({
  config: `/var/lib/rancher/${distribution}/agent/etc/containerd/config.toml`,
  certsDir: `/var/lib/rancher/${distribution}/agent/etc/containerd/certs.d`,
  // Of both.
  socket: "/run/k3s/containerd/containerd.sock",
  root: `/var/lib/rancher/${distribution}/agent/containerd`,
  state: "/run/k3s/containerd",
});

/** By who sets the node up. */
export const CONTAINERD_PATHS = {
  kubeadm: {
    config: "/etc/containerd/config.toml",
    certsDir: "/etc/containerd/certs.d",
    socket: "/run/containerd/containerd.sock",
    root: "/var/lib/containerd",
    state: "/run/containerd",
  },
  k3s: rancher("k3s"),
  rke2: rancher("rke2"),
} as const satisfies Readonly<Record<string, ContainerdPaths>>;

export type Distribution = keyof typeof CONTAINERD_PATHS;

/** As kubeadm's users have them. */
export const CERTS_DIR = CONTAINERD_PATHS.kubeadm.certsDir;
export const CONTAINERD_SOCKET = CONTAINERD_PATHS.kubeadm.socket;

export const FILES = {
  containerd: CONTAINERD_PATHS.kubeadm.config,
  cni: "/etc/cni/net.d/00-rig.conflist",
  kubelet: "/etc/kubernetes/kubelet.json",
  kubeconfig: "/etc/kubernetes/kubelet.kubeconfig",
} as const;

/** For the version that reads it. */
export function containerdConfig(version: string, sandboxImage: string, certsDir: string): string {
  // runc cannot lower oom_score_adj without CAP_SYS_RESOURCE, which containers of machines like these lack.
  const unprivileged = "restrict_oom_score_adj = true";
  const lines = version.startsWith("1.")
    ? [
        "version = 2",
        '[plugins."io.containerd.grpc.v1.cri"]',
        `sandbox_image = "${sandboxImage}"`,
        unprivileged,
        '[plugins."io.containerd.grpc.v1.cri".cni]',
        // Debian's has its own idea.
        'bin_dir = "/opt/cni/bin"',
        '[plugins."io.containerd.grpc.v1.cri".registry]',
        `config_path = "${certsDir}"`,
      ]
    : [
        "version = 3",
        '[plugins."io.containerd.cri.v1.runtime"]',
        unprivileged,
        '[plugins."io.containerd.cri.v1.images".pinned_images]',
        `sandbox = "${sandboxImage}"`,
        '[plugins."io.containerd.cri.v1.images".registry]',
        `config_path = "${certsDir}"`,
      ];
  return `${lines.join("\n")}\n`;
}

/** Pods of one node by veth pairs; the rig's routes join the nodes' subnets. */
export const cniConfig = (index: number): string =>
  JSON.stringify({
    cniVersion: "0.4.0",
    name: "rig",
    plugins: [
      {
        type: "ptp",
        ipam: {
          type: "host-local",
          subnet: podSubnet(index),
          routes: [{ dst: "0.0.0.0/0" }],
          dataDir: "/run/cni",
        },
      },
    ],
  });

export const kubeletConfig = (containerdSocket: string): string =>
  JSON.stringify({
    kind: "KubeletConfiguration",
    apiVersion: "kubelet.config.k8s.io/v1beta1",
    // Whoever reaches the network of the rig may: nobody else is on it.
    authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
    authorization: { mode: "AlwaysAllow" },
    cgroupDriver: "cgroupfs",
    failCgroupV1: false,
    failSwapOn: false,
    clusterDNS: [DNS_ADDRESS],
    clusterDomain: "cluster.local",
    containerRuntimeEndpoint: `unix://${containerdSocket}`,
    volumePluginDir: "/var/lib/kubelet/volumeplugins",
    makeIPTablesUtilChains: false,
    // The disk is that of the machine below, however full it is.
    evictionHard: { "memory.available": "1Mi", "nodefs.available": "1Mi", "imagefs.available": "1Mi" },
    imageGCHighThresholdPercent: 100,
    imageGCLowThresholdPercent: 99,
  });

/** @param ca PEM */
export const kubeconfig = (server: string, ca: string, token: string): string =>
  JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [
      {
        name: "rig",
        cluster: { server, "certificate-authority-data": Buffer.from(ca).toString("base64") },
      },
    ],
    users: [{ name: "user", user: { token } }],
    contexts: [{ name: "rig", context: { cluster: "rig", user: "user" } }],
    "current-context": "rig",
  });
