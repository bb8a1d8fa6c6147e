import { readFile } from "node:fs/promises";
import path from "node:path";
import type { Blob, Content } from "./content.ts";

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

/** The image of an OCI image layout on disk, to be pushed; the first one, if it has several. */
export async function readLayout(folder: string): Promise<Content> {
  const index: { manifests: Descriptor[] } = JSON.parse(
    await readFile(path.join(folder, "index.json"), "utf8"),
  );
  const [descriptor] = index.manifests;
  if (descriptor === undefined) throw new TypeError(`${folder} holds no image`);
  const blob = async ({ mediaType, digest, size }: Descriptor): Promise<Blob> => ({
    descriptor: { mediaType, digest, size },
    bytes: await readFile(path.join(folder, "blobs", digest.replace(":", "/"))),
  });
  const { bytes } = await blob(descriptor);
  const manifest: { config: Descriptor; layers: Descriptor[] } = JSON.parse(bytes.toString("utf8"));
  return {
    ...(await blob(descriptor)),
    blobs: await Promise.all([manifest.config, ...manifest.layers].map(blob)),
    manifests: [],
  };
}
