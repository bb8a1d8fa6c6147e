import { hostsStatus } from "../../hosts/hosts.ts";
import { registryOf } from "../../hosts/registry-directory.ts";
import { CannotTell, type Check, type Subject } from "../check.ts";

/** The directory that containerd reads. @throws CannotTell */
export async function hostsDirOf(subject: Subject): Promise<string> {
  const { settings } = subject;
  if (settings.hostsDir !== undefined) return settings.hostsDir;
  const [first = ""] = (await subject.config()).configPath.split(":");
  if (first === "") throw new CannotTell("neither hosts_dir nor containerd's config_path is set");
  return first;
}

/** Whether the mirror is first in each hosts.toml. */
export const hostsFiles: Check = {
  name: "hosts-toml",
  cheap: true,
  async find(subject) {
    const { mirror, without } = subject.settings;
    const hostsDir = await hostsDirOf(subject);
    const status = await hostsStatus({ hostsDir, mirror, registries: [] });
    return status
      .filter(({ directory, inForce }) => !inForce && !without.has(registryOf(directory) ?? ""))
      .map(({ directory, problem, asks }) => ({
        severity: "broken" as const,
        what:
          problem ??
          `${hostsDir}/${directory}/hosts.toml does not name ${mirror} first, but ${asks[0] ?? "nobody"}`,
        why:
          directory === "_default"
            ? "images of registries without a directory of their own are pulled past the mirror"
            : `images of ${registryOf(directory) ?? directory} are pulled past the mirror`,
        fix:
          problem === undefined
            ? `p2p-mirror hosts install --hosts-dir ${hostsDir} --mirror ${mirror}`
            : `correct ${hostsDir}/${directory}/hosts.toml, then p2p-mirror hosts install --hosts-dir ${hostsDir}`,
      }));
  },
};
