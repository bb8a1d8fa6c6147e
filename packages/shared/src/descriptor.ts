import { InvalidInputError } from "./errors.ts";
import { isDigest, type Digest } from "./digest.ts";

/** What a manifest says of one of its children (OCI image spec, descriptor.md). `size` in bytes. */
export interface Descriptor {
  readonly digest: Digest;
  readonly size: number;
  readonly mediaType: string;
}

/** OCI distribution spec 1.1, "Pushing Manifests": registries should accept 4 MiB; containerd refuses more. */
export const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;

export const MEDIA_TYPES = {
  ociManifest: "application/vnd.oci.image.manifest.v1+json",
  ociIndex: "application/vnd.oci.image.index.v1+json",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
  dockerList: "application/vnd.docker.distribution.manifest.list.v2+json",
  octetStream: "application/octet-stream",
} as const;

const MANIFEST_TYPES: ReadonlySet<string> = new Set([
  MEDIA_TYPES.ociManifest,
  MEDIA_TYPES.ociIndex,
  MEDIA_TYPES.dockerManifest,
  MEDIA_TYPES.dockerList,
]);

export function isManifestType(mediaType: string): boolean {
  return MANIFEST_TYPES.has(mediaType);
}

export interface Manifest {
  /** `mediaType` as the document says it (optional in OCI documents). */
  readonly declaredType: string | undefined;
  /** The declared type, else the one its shape has. */
  readonly mediaType: string;
  /** Manifests of an index (other platforms, attestations), in file order. */
  readonly manifests: readonly Descriptor[];
  /** Config and layers of an image or artifact, in file order. */
  readonly blobs: readonly Descriptor[];
  /** The manifest this one is attached to (OCI 1.1 referrers). */
  readonly subject: Descriptor | undefined;
  readonly artifactType: string | undefined;
  readonly annotations: Readonly<Record<string, string>> | undefined;
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function readDescriptor(value: unknown): Descriptor | undefined {
  if (!isRecord(value)) return undefined;
  const { digest, size, mediaType } = value;
  if (typeof digest !== "string" || !isDigest(digest)) return undefined;
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0) return undefined;
  return { digest, size, mediaType: typeof mediaType === "string" ? mediaType : MEDIA_TYPES.octetStream };
}

const readDescriptors = (value: unknown): Descriptor[] =>
  Array.isArray(value) ? value.map(readDescriptor).filter((one) => one !== undefined) : [];

function fail(why: string, cause?: unknown): never {
  throw new InvalidInputError("MANIFEST_INVALID", "manifest", why, { cause });
}

/**
 * Reads an image manifest, index, docker schema 2 manifest or list, or artifact. A document without `mediaType` (the OCI
 * spec allows it) gets the type its shape has. Children that are no valid descriptors are left out.
 * @throws InvalidInputError (`MANIFEST_INVALID`) when the bytes are no JSON object, or too many of them.
 */
export function parseManifest(bytes: Uint8Array): Manifest {
  if (bytes.byteLength > MAX_MANIFEST_BYTES) fail(`${bytes.byteLength} bytes`);
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    fail("no JSON", error);
  }
  if (!isRecord(json)) return fail("no JSON object");
  const isIndex = Array.isArray(json["manifests"]);
  const config = readDescriptor(json["config"]);
  const declaredType = typeof json["mediaType"] === "string" ? json["mediaType"] : undefined;
  return {
    declaredType,
    mediaType: declaredType ?? (isIndex ? MEDIA_TYPES.ociIndex : MEDIA_TYPES.ociManifest),
    manifests: readDescriptors(json["manifests"]),
    blobs: [
      ...(config === undefined ? [] : [config]),
      ...readDescriptors(json["layers"]),
      ...readDescriptors(json["blobs"]),
    ],
    subject: readDescriptor(json["subject"]),
    artifactType: typeof json["artifactType"] === "string" ? json["artifactType"] : undefined,
    annotations: isRecord(json["annotations"])
      ? Object.fromEntries(
          Object.entries(json["annotations"]).filter(
            (entry): entry is [string, string] => typeof entry[1] === "string",
          ),
        )
      : undefined,
  };
}
