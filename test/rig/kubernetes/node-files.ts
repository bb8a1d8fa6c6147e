import { DNS_ADDRESS, podSubnet } from "./addresses.ts";

/** Where containerd looks for hosts.toml files, as kubeadm's users have it. */
export const CERTS_DIR = "/etc/containerd/certs.d";
export const CONTAINERD_SOCKET = "/run/containerd/containerd.sock";

export const FILES = {
  containerd: "/etc/containerd/config.toml",
  cni: "/etc/cni/net.d/00-rig.conflist",
  kubelet: "/etc/kubernetes/kubelet.json",
  kubeconfig: "/etc/kubernetes/kubelet.kubeconfig",
} as const;

/** Configuration in its usual place, with the usual paths, for the version that reads it. */
export function containerdConfig(version: string, sandboxImage: string): string {
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
        `config_path = "${CERTS_DIR}"`,
      ]
    : [
        "version = 3",
        '[plugins."io.containerd.cri.v1.runtime"]',
        unprivileged,
        '[plugins."io.containerd.cri.v1.images".pinned_images]',
        `sandbox = "${sandboxImage}"`,
        '[plugins."io.containerd.cri.v1.images".registry]',
        `config_path = "${CERTS_DIR}"`,
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

export const kubeletConfig = (): string =>
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
    containerRuntimeEndpoint: `unix://${CONTAINERD_SOCKET}`,
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
