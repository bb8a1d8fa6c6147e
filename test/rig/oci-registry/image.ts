import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";
import { digestOf, MEDIA_TYPES, type Descriptor, type Digest } from "@p2p-mirror/shared";
import type { PushedContent } from "./content.ts";

/** An image to push, and what is in it. */
export interface BuiltImage extends PushedContent {
  /** Of the top: the index when there are several platforms, else the manifest. */
  readonly digest: Digest;
  readonly layers: readonly Descriptor[];
  readonly config: Descriptor;
  /** Bytes of everything: manifests, configs, layers. */
  readonly size: number;
}

/** Bytes that look random (they do not compress), the same for the same seed. */
export function seededBytes(seed: string, size: number): Buffer {
  const bytes = Buffer.allocUnsafe(size);
  let at = 0;
  for (let round = 0; at < size; round += 1) {
    // SHAKE gives a megabyte per call at disk speed, and node:crypto has no seeded generator.
    const part = createHash("shake128", { outputLength: Math.min(1 << 20, size - at) })
      .update(`${seed}/${round}`)
      .digest();
    part.copy(bytes, at);
    at += part.length;
  }
  return bytes;
}

const octal = (value: number, width: number): string => `${value.toString(8).padStart(width - 1, "0")}\0`;

function tarOf(name: string, body: Buffer): Buffer {
  const header = Buffer.alloc(512);
  header.write(name, 0);
  header.write(octal(0o644, 8), 100);
  header.write(octal(0, 8) + octal(0, 8) + octal(body.length, 12) + octal(0, 12), 108);
  header.write("        0", 148); // the checksum counts as spaces; then the type: a regular file
  header.write("ustar\u000000", 257);
  header.write(
    octal(
      header.reduce((sum, byte) => sum + byte, 0),
      7,
    ),
    148,
  );
  header.write(" ", 155);
  return Buffer.concat([header, body, Buffer.alloc((512 - (body.length % 512)) % 512), Buffer.alloc(1024)]);
}

const describe = (bytes: Uint8Array, mediaType: string): Descriptor => ({
  mediaType,
  digest: digestOf(bytes),
  size: bytes.byteLength,
});

/**
 * An image that a real containerd unpacks: each layer a gzipped tar with one incompressible file of the given size in
 * bytes (stored, not deflated, so that large images are made fast). `platforms` more than one makes an index; the layers are shared.
 */
export function buildImage(options: {
  readonly repository: string;
  readonly tag?: string;
  readonly seed: string;
  readonly layerSizes: readonly number[];
  readonly platforms?: readonly string[];
}): BuiltImage {
  const tars = options.layerSizes.map((size, index) =>
    tarOf(`layer-${index}-${options.seed}`.slice(0, 99), seededBytes(`${options.seed}/${index}`, size)),
  );
  const layerBytes = tars.map((tar) => gzipSync(tar, { level: 0 }));
  const layers = layerBytes.map((bytes) => describe(bytes, "application/vnd.oci.image.layer.v1.tar+gzip"));
  const platforms = options.platforms ?? ["amd64"];
  const configs: Buffer[] = [];
  const manifests: Buffer[] = [];
  for (const architecture of platforms) {
    const config = Buffer.from(
      JSON.stringify({
        architecture,
        os: "linux",
        created: "2026-01-01T00:00:00Z",
        config: { Cmd: ["/bin/true"], Labels: { seed: options.seed } },
        rootfs: { type: "layers", diff_ids: tars.map((tar) => digestOf(tar)) },
      }),
    );
    configs.push(config);
    manifests.push(
      Buffer.from(
        JSON.stringify({
          schemaVersion: 2,
          mediaType: MEDIA_TYPES.ociManifest,
          config: describe(config, "application/vnd.oci.image.config.v1+json"),
          layers,
        }),
      ),
    );
  }
  const tags = [options.tag ?? "latest"];
  const single = manifests.length === 1;
  const index = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.ociIndex,
      manifests: manifests.map((bytes, at) => ({
        ...describe(bytes, MEDIA_TYPES.ociManifest),
        platform: { os: "linux", architecture: platforms[at] },
      })),
    }),
  );
  const top = single ? (manifests[0] ?? index) : index;
  const blobs = [...configs, ...layerBytes];
  const all = single ? [...blobs, top] : [...blobs, ...manifests, top];
  return {
    repository: options.repository,
    blobs,
    manifests: single
      ? [{ mediaType: MEDIA_TYPES.ociManifest, bytes: top, tags }]
      : [
          ...manifests.map((bytes) => ({ mediaType: MEDIA_TYPES.ociManifest, bytes })),
          { mediaType: MEDIA_TYPES.ociIndex, bytes: index, tags },
        ],
    digest: digestOf(top),
    layers,
    config: describe(configs[0] ?? Buffer.alloc(0), "application/vnd.oci.image.config.v1+json"),
    size: all.reduce((sum, bytes) => sum + bytes.byteLength, 0),
  };
}
