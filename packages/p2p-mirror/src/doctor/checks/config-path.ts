import { realpath } from "node:fs/promises";
import { isAtLeast, type Check, type DoctorSettings, type Subject } from "../check.ts";
import type { ContainerdConfig } from "../containerd-config.ts";
import type { Finding } from "../../status.ts";

const DEFAULT_DIR = "/etc/containerd/certs.d";

/**
 * Whether containerd reads the hosts.toml files that name the mirror: `config_path` is there, is one directory, and the
 * right one. (facts/prefetch.md d.5: with the transfer service a list of directories is looked for as one name.)
 */
export const configPath: Check = {
  name: "config-path",
  cheap: true,
  async find(subject) {
    const { settings } = subject;
    const config = await subject.config();
    const fix = (why = ""): string => fixOf(config, settings, why);
    if (config.criDisabled) {
      return [
        {
          severity: "broken",
          what: `containerd's CRI plugin is in disabled_plugins of ${config.files[0]}`,
          why: "Kubernetes cannot pull images with this containerd at all, through the mirror or not",
          fix: "take the CRI plugin out of disabled_plugins, and restart containerd",
        },
      ];
    }
    if (config.configPath === "") {
      return [
        {
          severity: "broken",
          what: `config_path is not set in ${config.files[0]}`,
          why: "containerd reads no hosts.toml, or from 2.2 on looks where its transfer service does not: pulls go past the mirror",
          fix: fix(),
        },
      ];
    }
    const directories = config.configPath.split(":").filter((one) => one !== "");
    if (directories.length > 1) return colons(subject, config, directories, fix);
    return wrongDirectory(config.configPath, settings, fix);
  },
};

async function colons(
  subject: Subject,
  config: ContainerdConfig,
  directories: readonly string[],
  fix: (why?: string) => string,
): Promise<readonly Omit<Finding, "check">[]> {
  const usesTransfer = isAtLeast(await subject.version(), 2, 1) && config.localPull.length === 0;
  if (!usesTransfer) return wrongDirectory(directories[0] ?? "", subject.settings, fix);
  return [
    {
      severity: "broken",
      what: `config_path lists several directories: ${config.configPath}`,
      why: "containerd's transfer service, which pulls images from 2.1 on, takes the list for the name of one directory, finds nothing there, and says nothing: pulls go past the mirror",
      fix: fix(),
    },
  ];
}

async function wrongDirectory(
  path: string,
  { hostsDir }: DoctorSettings,
  fix: (why?: string) => string,
): Promise<readonly Omit<Finding, "check">[]> {
  if (hostsDir === undefined) return [];
  const [configured, used] = await Promise.all([path, hostsDir].map((one) => realpath(one).catch(() => one)));
  if (configured === used) return [];
  return [
    {
      severity: "broken",
      what: `config_path is ${path}, and the mirror's hosts_dir is ${hostsDir}`,
      why: "containerd reads other hosts.toml files than those that name the mirror",
      fix: fix(
        `set hosts_dir of the mirror to ${path} (as the mirror sees that directory; on Kubernetes P2P_MIRROR_HOSTS_DIR, mounts and volume of the DaemonSet, as in manifests/overlays/gke), or `,
      ),
    },
  ];
}

const fixOf = (config: ContainerdConfig, { hostsDir }: DoctorSettings, before: string): string =>
  `${before}set in ${config.files[0]}: [${config.registryTable}] config_path = "${hostsDir ?? DEFAULT_DIR}" (one directory), and restart containerd`;
