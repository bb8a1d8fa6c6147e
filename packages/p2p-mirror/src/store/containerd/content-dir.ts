import { stat } from "node:fs/promises";
import { isAbsolute, join } from "node:path";
import { algorithmOf, hexOf, type Digest } from "@p2p-mirror/shared";
import type { StoredBlob } from "../content-store.ts";

/** Where containerd keeps content when nobody configured another root. */
export const DEFAULT_CONTENT_ROOT = "/var/lib/containerd/io.containerd.content.v1.content";

/**
 * containerd's content directory as files. Committed blobs appear by rename under `blobs/<algorithm>/<hex>` and never
 * change; what is still being written lies elsewhere (`ingest/`).
 */
export class ContentDir {
  readonly root: string;

  constructor(root: string) {
    this.root = root;
  }

  pathOf(digest: Digest): string {
    return join(this.root, "blobs", algorithmOf(digest), hexOf(digest));
  }

  /** Whether the blob can be seen here with the size that containerd says it has. */
  async holds(blob: StoredBlob): Promise<boolean> {
    try {
      const stats = await stat(this.pathOf(blob.digest));
      return stats.isFile() && stats.size === blob.size;
    } catch {
      // Not there, not allowed, not mounted: all the same to the caller, who then asks containerd.
      return false;
    }
  }
}

/** Blobs tried in each candidate: garbage collection may take any one of them meanwhile. */
const PROBES = 3;

/**
 * The first of `roots` where this process sees files of blobs that containerd says it holds, or undefined when there is
 * none: a daemon in a container may not see the directory, or see it elsewhere. When containerd holds nothing yet, the
 * first root is taken; each blob is checked again before its file is read anyway.
 */
export async function findContentDir(
  roots: readonly (string | undefined)[],
  held: readonly StoredBlob[],
): Promise<ContentDir | undefined> {
  const dirs = roots
    .filter((root) => root !== undefined)
    .filter((root) => isAbsolute(root))
    .map((root) => new ContentDir(root));
  if (held.length === 0) return dirs[0];
  for (const dir of dirs) {
    for (const blob of held.slice(0, PROBES)) if (await dir.holds(blob)) return dir;
  }
  return undefined;
}
