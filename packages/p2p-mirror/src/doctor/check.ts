import type { Finding, MirrorStatus } from "../status.ts";
import type { ContainerdConfig } from "./containerd-config.ts";

/** What the doctor is told of the node. */
export interface DoctorSettings {
  /** URL of the registry endpoint, as containerd asks it. */
  readonly mirror: string;
  /** containerd's hosts.toml files; undefined: where its configuration says. */
  readonly hostsDir: string | undefined;
  /** Undefined: there is no containerd. */
  readonly containerdSocket: string | undefined;
  readonly containerdNamespace: string;
  /** containerd's config.toml. */
  readonly containerdConfig: string;
  readonly dataDir: string;
  /** Bytes that are to stay free on a file system of `total` bytes. */
  minFree(total: number): number;
  /** Where the mirror listens, by the name of the setting. */
  readonly listeners: readonly { readonly setting: string; readonly host: string; readonly port: number }[];
  /** It has a cluster secret, so it is to be one of many, and no setting leads it to another one. */
  readonly knowsNobody: boolean;
  /** Registries that are to go past the mirror. */
  readonly without: ReadonlySet<string>;
  /** Registries whose settings say where they are, whatever hosts.toml says: by lower-case name. */
  readonly told: ReadonlySet<string>;
}

/** The node as the checks see it; each part is found out when a check wants it, once. */
export interface Subject {
  readonly settings: DoctorSettings;
  /** @throws CannotTell when the file cannot be read */
  config(): Promise<ContainerdConfig>;
  /** containerd's version, like `2.1.9`. @throws CannotTell */
  version(): Promise<Version>;
  /** Names of its images and when they came (milliseconds since the epoch). @throws CannotTell */
  images(): Promise<readonly { readonly name: string; readonly createdAt: number }[]>;
  /** Has containerd pull an image as kubelet would. @throws SourceError, CannotTell */
  pull(reference: string, signal: AbortSignal): Promise<void>;
  /** What the mirror says of itself now; undefined: none runs. */
  status(): Promise<MirrorStatus | undefined>;
}

export interface Version {
  readonly text: string;
  readonly major: number;
  readonly minor: number;
  readonly patch: number;
}

/** True for that version and later ones. */
export const isAtLeast = (version: Version, major: number, minor: number, patch = 0): boolean =>
  version.major !== major
    ? version.major > major
    : version.minor !== minor
      ? version.minor > minor
      : version.patch >= patch;

/** One thing that can be wrong, and how that is found out. */
export interface Check {
  /** A label of the metric. */
  readonly name: string;
  /** Costs the node nothing: the daemon makes it every minute. The others are made by the command alone, or rarely. */
  readonly cheap: boolean;
  /** What is wrong. @throws CannotTell */
  find(subject: Subject, signal: AbortSignal): Promise<readonly Omit<Finding, "check">[]>;
}

/** A check cannot be made here; the message says why. */
export class CannotTell extends Error {
  override readonly name = "CannotTell";
}
