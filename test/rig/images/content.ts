import { createHash } from "node:crypto";

export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly platform?: { readonly architecture: string; readonly os: string };
  readonly annotations?: Readonly<Record<string, string>>;
  readonly artifactType?: string;
}

/** A manifest of any kind with everything it needs, children included: what can be pushed as a whole. */
export interface Content {
  readonly descriptor: Descriptor;
  readonly bytes: Buffer;
  /** Config and layers. */
  readonly blobs: readonly Blob[];
  /** Manifests this one (an index or list) names. */
  readonly manifests: readonly Content[];
}

export interface Blob {
  readonly descriptor: Descriptor;
  readonly bytes: Buffer;
}

export const MEDIA = {
  manifest: "application/vnd.oci.image.manifest.v1+json",
  index: "application/vnd.oci.image.index.v1+json",
  config: "application/vnd.oci.image.config.v1+json",
  layer: "application/vnd.oci.image.layer.v1.tar",
  empty: "application/vnd.oci.empty.v1+json",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
  dockerList: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerConfig: "application/vnd.docker.container.image.v1+json",
  dockerLayer: "application/vnd.docker.image.rootfs.diff.tar",
} as const;

export const sha256 = (bytes: Uint8Array): string =>
  `sha256:${createHash("sha256").update(bytes).digest("hex")}`;

export function blobOf(mediaType: string, bytes: Buffer): Blob {
  return { descriptor: { mediaType, digest: sha256(bytes), size: bytes.length }, bytes };
}

/** Every manifest below `content`, itself last: the order in which a registry accepts them. */
export function manifestsOf(content: Content): Content[] {
  return [...content.manifests.flatMap(manifestsOf), content];
}

/** Every blob below `content`, each digest once. */
export function blobsOf(content: Content): Blob[] {
  const all = manifestsOf(content).flatMap((manifest) => manifest.blobs);
  return [...new Map(all.map((blob) => [blob.descriptor.digest, blob])).values()];
}
