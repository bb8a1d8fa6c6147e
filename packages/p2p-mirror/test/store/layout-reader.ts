import fs from "node:fs/promises";
import path from "node:path";
import { digestOf, isDigest, parseDigest, type Digest } from "@p2p-mirror/shared";

export interface LayoutManifest {
  readonly name: string;
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
}

/**
 * Reads an OCI image layout as any tool would, by the words of the spec (image-layout.md) and with none of the mirror's
 * code for it. Throws at whatever the spec does not allow; every blob is read and hashed.
 */
export async function readLayout(dir: string): Promise<{ manifests: LayoutManifest[]; blobs: Set<Digest> }> {
  const layout: unknown = JSON.parse(await fs.readFile(path.join(dir, "oci-layout"), "utf8"));
  if (field(layout, "imageLayoutVersion") !== "1.0.0") throw new Error("oci-layout without its version");

  const index: unknown = JSON.parse(await fs.readFile(path.join(dir, "index.json"), "utf8"));
  if (field(index, "schemaVersion") !== 2) throw new Error("index.json is no image index");
  const entries: unknown = field(index, "manifests");
  if (!Array.isArray(entries)) throw new Error("index.json without manifests");
  const manifests = entries.map((entry: unknown) => ({
    name: text(field(entry, "annotations"), "org.opencontainers.image.ref.name"),
    mediaType: text(entry, "mediaType"),
    digest: parseDigest(text(entry, "digest")),
    size: Number(field(entry, "size")),
  }));

  const blobs = new Set<Digest>();
  for (const algorithm of ["sha256", "sha512"] as const) {
    for (const name of await fs.readdir(path.join(dir, "blobs", algorithm))) {
      const digest = `${algorithm}:${name}`;
      if (!isDigest(digest)) throw new Error(`blobs/${algorithm}/${name} is not named by a digest`);
      const found = digestOf(await fs.readFile(path.join(dir, "blobs", algorithm, name)), algorithm);
      if (found !== digest) throw new Error(`${digest} holds ${found}`);
      blobs.add(digest);
    }
  }
  return { manifests, blobs };
}

function field(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? Reflect.get(value, name) : undefined;
}

function text(value: unknown, name: string): string {
  const found = field(value, name);
  if (typeof found !== "string") throw new Error(`${name} is missing`);
  return found;
}
