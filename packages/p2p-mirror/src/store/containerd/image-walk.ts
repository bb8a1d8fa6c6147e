import { isManifestType, parseManifest, type Descriptor, type Digest } from "@p2p-mirror/shared";

export interface ImageWalkDeps {
  /** Looks whether containerd holds it, and remembers that it does. */
  isHeld(digest: Digest): Promise<boolean>;
  /** The verified bytes of a manifest, or undefined when they cannot be had. */
  readManifest(descriptor: Descriptor): Promise<Uint8Array | undefined>;
}

/** More than any real image has (an index of 20 platforms with attestations has 40). */
const MAX_MANIFESTS = 1_000;

/**
 * Visits what an image consists of, from its index down to layers, as far as it is held: of the platforms of an index
 * containerd has fetched one. Needed where containerd has no events about content (before 2.1).
 */
export async function walkImage(target: Descriptor, deps: ImageWalkDeps): Promise<void> {
  const seen = new Set<Digest>([target.digest]);
  const manifests = [target];
  for (let visited = 0; visited < MAX_MANIFESTS; visited += 1) {
    const descriptor = manifests.shift();
    if (descriptor === undefined) return;
    if (!(await deps.isHeld(descriptor.digest))) continue;
    const bytes = await deps.readManifest(descriptor);
    if (bytes === undefined) continue;
    let manifest;
    try {
      manifest = parseManifest(bytes);
    } catch {
      // Content of an unknown kind under an image name; it has no children that we know of.
      continue;
    }
    for (const child of [...manifest.manifests, ...manifest.blobs]) {
      if (seen.has(child.digest)) continue;
      seen.add(child.digest);
      if (isManifestType(child.mediaType)) manifests.push(child);
      else await deps.isHeld(child.digest);
    }
  }
}
