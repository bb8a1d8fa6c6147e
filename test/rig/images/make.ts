import { gzipSync, zstdCompressSync } from "node:zlib";
import { blobOf, type Blob, type Content, type Descriptor, MEDIA, sha256 } from "./content.ts";
import { randomBytesOf } from "./random.ts";
import { tarOf, type TarFile } from "./tar.ts";

export type Compression = "none" | "gzip" | "zstd";

export interface ImageOptions {
  /** Same seed, same bytes. */
  readonly seed: string;
  /** Bytes of each layer's content; the layer is a little larger for its tar header. Default: one layer of 64 KiB. */
  readonly layers?: readonly number[];
  readonly compression?: Compression;
  /** Files of a layer of their own below the others. */
  readonly files?: readonly TarFile[];
  /** What runs, as image configs have it; default a program that does not exist. */
  readonly config?: { readonly Entrypoint?: readonly string[]; readonly Cmd?: readonly string[] };
  /** Docker's media types (schema 2) instead of OCI's. */
  readonly docker?: boolean;
  /** Default: what this machine runs. */
  readonly architecture?: string;
}

/** This machine's architecture by its name in image configs. */
export const HOST_ARCHITECTURE = process.arch === "x64" ? "amd64" : process.arch;

/** An image for one platform, with layers that unpack to one file each. */
export function makeImage(options: ImageOptions): Content {
  const { seed, layers = [64 * 1024], compression = "none", docker = false, files = [] } = options;
  const architecture = options.architecture ?? HOST_ARCHITECTURE;
  const diffIds: string[] = [];
  const random = layers.map((size, index): TarFile => {
    const name = `${architecture}-layer-${index}.bin`;
    return { name, content: randomBytesOf(seed, name, size) };
  });
  const layerBlobs = [...(files.length > 0 ? [files] : []), ...random.map((file) => [file])].map(
    (content) => {
      const tar = tarOf(content);
      diffIds.push(sha256(tar));
      return blobOf(layerType(compression, docker), compress(tar, compression));
    },
  );
  const config = blobOf(
    docker ? MEDIA.dockerConfig : MEDIA.config,
    json({
      architecture,
      os: "linux",
      config: options.config ?? { Cmd: ["/none"] },
      rootfs: { type: "layers", diff_ids: diffIds },
      history: diffIds.map(() => ({ created_by: `seed ${seed}` })),
    }),
  );
  const platform = { architecture, os: "linux" };
  return manifestOf(docker ? MEDIA.dockerManifest : MEDIA.manifest, config, layerBlobs, { platform });
}

/** An index (or docker list) of any manifests, also of other indexes. */
export function makeIndex(children: readonly Content[], options: { docker?: boolean } = {}): Content {
  const mediaType = options.docker === true ? MEDIA.dockerList : MEDIA.index;
  const bytes = json({ schemaVersion: 2, mediaType, manifests: children.map((child) => child.descriptor) });
  return { ...blobOf(mediaType, bytes), blobs: [], manifests: children };
}

/** What builders push today: amd64 and arm64, with an attestation manifest of platform unknown/unknown for each. */
export function makeMultiArch(options: Omit<ImageOptions, "architecture">): Content {
  const images = ["amd64", "arm64"].map((architecture) => makeImage({ ...options, architecture }));
  if (options.docker === true) return makeIndex(images, { docker: true });
  return makeIndex([...images, ...images.map(attestation)]);
}

function attestation(image: Content): Content {
  const statement = blobOf("application/vnd.in-toto+json", json({ subject: image.descriptor.digest }));
  const diffs = { rootfs: { type: "layers", diff_ids: [statement.descriptor.digest] } };
  const config = blobOf(MEDIA.config, json({ architecture: "unknown", os: "unknown", ...diffs }));
  return manifestOf(MEDIA.manifest, config, [statement], {
    platform: { architecture: "unknown", os: "unknown" },
    annotations: {
      "vnd.docker.reference.type": "attestation-manifest",
      "vnd.docker.reference.digest": image.descriptor.digest,
    },
  });
}

export interface ArtifactOptions {
  readonly seed: string;
  readonly artifactType: string;
  /** Bytes of its one blob, default 1 KiB. */
  readonly size?: number;
  /** What it refers to: it then shows up among the referrers of that. */
  readonly subject?: Content;
}

/** An OCI artifact: no image, config empty. */
export function makeArtifact(options: ArtifactOptions): Content {
  const config = blobOf(MEDIA.empty, Buffer.from("{}"));
  const content = randomBytesOf(options.seed, "artifact", options.size ?? 1024);
  const blob = blobOf("application/octet-stream", content);
  const { artifactType, subject } = options;
  return manifestOf(MEDIA.manifest, config, [blob], {
    artifactType,
    ...(subject === undefined ? {} : { subject: subject.descriptor }),
  });
}

interface ManifestExtras {
  readonly platform?: { architecture: string; os: string };
  readonly annotations?: Readonly<Record<string, string>>;
  readonly artifactType?: string;
  readonly subject?: Descriptor;
}

function manifestOf(
  mediaType: string,
  config: Blob,
  layers: readonly Blob[],
  extras: ManifestExtras,
): Content {
  const { platform, annotations, artifactType, subject } = extras;
  const bytes = json({
    schemaVersion: 2,
    mediaType,
    artifactType,
    config: config.descriptor,
    layers: layers.map((layer) => layer.descriptor),
    subject:
      subject === undefined
        ? undefined
        : { mediaType: subject.mediaType, digest: subject.digest, size: subject.size },
  });
  const blob = blobOf(mediaType, bytes);
  const descriptor: Descriptor = {
    ...blob.descriptor,
    ...(platform === undefined ? {} : { platform }),
    ...(annotations === undefined ? {} : { annotations }),
    ...(artifactType === undefined ? {} : { artifactType }),
  };
  return { descriptor, bytes, blobs: [config, ...layers], manifests: [] };
}

function compress(tar: Buffer, compression: Compression): Buffer {
  if (compression === "gzip") return gzipSync(tar, { level: 1 });
  if (compression === "zstd") return zstdCompressSync(tar);
  return tar;
}

function layerType(compression: Compression, docker: boolean): string {
  const base = docker ? MEDIA.dockerLayer : MEDIA.layer;
  if (compression === "none") return base;
  return docker ? `${base}.${compression}` : `${base}+${compression}`;
}

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
