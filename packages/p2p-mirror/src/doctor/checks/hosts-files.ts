import { hostsStatus, type HostsStatus } from "../../hosts/hosts.ts";
import { registryOf } from "../../hosts/registry-directory.ts";
import type { Finding } from "../../status.ts";
import { CannotTell, type Check, type Subject } from "../check.ts";

type Found = Omit<Finding, "check">;

/** The directory that containerd reads. @throws CannotTell */
export async function hostsDirOf(subject: Subject): Promise<string> {
  const { settings } = subject;
  if (settings.hostsDir !== undefined) return settings.hostsDir;
  const [first = ""] = (await subject.config()).configPath.split(":");
  if (first === "") throw new CannotTell("neither hosts_dir nor containerd's config_path is set");
  return first;
}

/** Whether the mirror is first in each hosts.toml, and can ask whom it names. */
export const hostsFiles: Check = {
  name: "hosts-toml",
  cheap: true,
  async find(subject) {
    const { mirror, without, told } = subject.settings;
    const hostsDir = await hostsDirOf(subject);
    const status = await hostsStatus({ hostsDir, mirror, registries: [] });
    return status.flatMap((one) => {
      const registry = registryOf(one.directory);
      if (without.has(registry ?? "")) return [];
      const about = { ...one, hostsDir, mirror, registry };
      if (!one.inForce) return notFirst(about);
      // Without hosts_dir the mirror takes nothing from these files.
      if (one.notUnderstood === undefined || subject.settings.hostsDir === undefined) return [];
      if (told.has(registry?.toLowerCase() ?? "")) return [];
      return notUnderstood(about, one.notUnderstood);
    });
  },
};

interface About extends HostsStatus {
  readonly hostsDir: string;
  readonly mirror: string;
  /** Undefined: `_default`. */
  readonly registry: string | undefined;
}

const imagesOf = (registry: string | undefined): string =>
  registry === undefined ? "images of registries without a directory of their own" : `images of ${registry}`;

const notFirst = ({ hostsDir, directory, problem, asks, mirror, registry }: About): Found => ({
  severity: "broken",
  what:
    problem ??
    `${hostsDir}/${directory}/hosts.toml does not name ${mirror} first, but ${asks[0] ?? "nobody"}`,
  why: `${imagesOf(registry)} are pulled past the mirror`,
  fix:
    problem === undefined
      ? `p2p-mirror hosts install --hosts-dir ${hostsDir} --mirror ${mirror}`
      : `correct ${hostsDir}/${directory}/hosts.toml, then p2p-mirror hosts install --hosts-dir ${hostsDir}`,
});

/** Pulls work all the same, which is why it must be said: nobody would notice. */
const notUnderstood = ({ hostsDir, directory, registry }: About, reason: string): Found => ({
  severity: "broken",
  what: `the mirror does not understand ${hostsDir}/${directory}/hosts.toml: ${reason}`,
  why: `the mirror asks nobody for ${imagesOf(registry)}; containerd pulls them past it, from the hosts of that file`,
  fix:
    `change that line; a certificate must be where the mirror can read it, below ${hostsDir}` +
    (registry === undefined
      ? ""
      : `. Or set registries: { ${JSON.stringify(registry)}: { mirror: false } }, and containerd asks these hosts alone`),
});
