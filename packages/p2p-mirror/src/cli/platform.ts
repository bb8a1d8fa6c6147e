import { arch, platform } from "node:os";
import { isDigest, MEDIA_TYPES, type Digest } from "@p2p-mirror/shared";
import { InvalidValue } from "@p2p-mirror/shared/config";

/** As image indexes write it (OCI image spec, image-index.md): Go's names. */
export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant: string | undefined;
}

/** One manifest of an index. */
export interface IndexEntry {
  readonly digest: Digest;
  readonly platform: Platform | undefined;
}

const ARCHITECTURES: Readonly<Record<string, string>> = {
  x64: "amd64",
  ia32: "386",
  ppc64: "ppc64le",
  mipsel: "mipsle",
};

/** What images this machine runs. Containers are Linux also where the machine is not (the VM of a laptop). */
export function hostPlatform(): Platform {
  const machine = arch();
  return {
    os: platform() === "win32" ? "windows" : "linux",
    architecture: ARCHITECTURES[machine] ?? machine,
    variant: machine === "arm" ? "v7" : undefined,
  };
}

/** Reads `os/architecture[/variant]`. @throws InvalidValue */
export function parsePlatform(text: string): Platform {
  const [os, architecture, variant, ...rest] = text.split("/");
  if (os === undefined || architecture === undefined || rest.length > 0 || text.split("/").includes("")) {
    throw new InvalidValue("give OS/ARCHITECTURE or OS/ARCHITECTURE/VARIANT, like linux/arm64");
  }
  return { os, architecture, variant };
}

export const formatPlatform = ({ os, architecture, variant }: Platform): string =>
  [os, architecture, ...(variant === undefined ? [] : [variant])].join("/");

/**
 * The manifests for a platform: those of its OS, architecture and, where both name one, variant. An entry without a
 * platform is for all (artifacts have none), and one for `unknown` (attestations) for nobody.
 */
export function selectEntries(entries: readonly IndexEntry[], wanted: Platform): IndexEntry[] {
  const fits = ({ platform: offered }: IndexEntry): boolean =>
    offered !== undefined &&
    offered.os === wanted.os &&
    offered.architecture === wanted.architecture &&
    (offered.variant === undefined || wanted.variant === undefined || offered.variant === wanted.variant);
  const first = entries.find(fits);
  if (first !== undefined) return [first];
  return entries.filter((entry) => entry.platform === undefined);
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** The entries of an index or docker list; undefined for any other manifest. The bytes are known to be JSON. */
export function readIndex(bytes: Uint8Array): IndexEntry[] | undefined {
  const json: unknown = JSON.parse(Buffer.from(bytes).toString("utf8"));
  if (!isRecord(json) || !Array.isArray(json["manifests"])) return undefined;
  const manifests: readonly unknown[] = json["manifests"];
  return manifests.flatMap((entry) => {
    if (!isRecord(entry) || typeof entry["digest"] !== "string" || !isDigest(entry["digest"])) return [];
    return [{ digest: entry["digest"], platform: readPlatform(entry["platform"]) }];
  });
}

function readPlatform(value: unknown): Platform | undefined {
  if (!isRecord(value)) return undefined;
  const { os, architecture, variant } = value;
  if (typeof os !== "string" || typeof architecture !== "string") return undefined;
  return { os, architecture, variant: typeof variant === "string" && variant !== "" ? variant : undefined };
}

/** What a client that takes any manifest sends. */
export const ACCEPT_MANIFESTS = [
  MEDIA_TYPES.ociIndex,
  MEDIA_TYPES.dockerList,
  MEDIA_TYPES.ociManifest,
  MEDIA_TYPES.dockerManifest,
  "*/*;q=0.1",
].join(", ");
