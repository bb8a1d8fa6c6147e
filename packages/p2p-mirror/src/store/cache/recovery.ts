import fs from "node:fs/promises";
import {
  formatReference,
  isDigest,
  isManifestType,
  MAX_MANIFEST_BYTES,
  parseManifest,
  parseReference,
  digestOf,
  algorithmOf,
  type Descriptor,
  type Digest,
  type Logger,
  type Repository,
} from "@p2p-mirror/shared";
import type { BlobIndex } from "./blob-index.ts";
import { HEARD, RESOLVED_AT } from "./index-file.ts";
import type { OciLayout } from "./oci-layout.ts";
import type { SqliteCatalog } from "./sqlite-catalog.ts";

export interface RecoveryDeps {
  readonly layout: OciLayout;
  readonly index: BlobIndex;
  readonly catalog: SqliteCatalog;
  readonly logger: Logger;
}

/**
 * Brings the index in line with the directory: rows without a file go, files without a row (a crash between rename and
 * index, or an index made anew) are taken in and hashed when first read. Looks at names only, and at the size of what is
 * new.
 */
export async function reconcile({ layout, index, logger }: RecoveryDeps): Promise<void> {
  const onDisk = await layout.digests();
  const lost = index
    .entries()
    .filter((entry) => !onDisk.has(entry.digest))
    .toArray();
  for (const { digest } of lost) index.remove(digest);
  const found = await Promise.all(
    [...onDisk].filter((digest) => !index.has(digest)).map((one) => measure(layout, one)),
  );
  const adopted = found.filter((one) => one !== undefined);
  if (adopted.length > 0) index.adopt(adopted);
  if (lost.length + adopted.length > 0) {
    logger.info(
      { lost: lost.length, adopted: adopted.length },
      "the cache index was brought in line with the disk",
    );
  }
}

async function measure(
  layout: OciLayout,
  digest: Digest,
): Promise<{ digest: Digest; size: number; lastUse: number } | undefined> {
  try {
    const { size, mtimeMs } = await fs.stat(layout.blobPath(digest));
    return { digest, size, lastUse: Math.floor(mtimeMs) };
  } catch {
    return undefined;
  }
}

/**
 * After the database was lost: takes the tags from `index.json` and what their manifests name from the manifests. What
 * each blob's bytes came from is not known any more; that is asked again at upstream when it matters.
 */
export async function restoreCatalog(deps: RecoveryDeps): Promise<void> {
  const { layout, catalog, logger } = deps;
  let restored = 0;
  try {
    const { mtimeMs } = await fs.stat(layout.indexPath);
    for (const { descriptor, name, resolvedAt, heard } of readIndex(
      await fs.readFile(layout.indexPath, "utf8"),
    )) {
      const reference = parseReference(name);
      if (reference.tag === undefined || formatReference({ ...reference, digest: undefined }) !== name)
        continue;
      const { registry, repository, tag } = reference;
      // Nothing in a file is newer than the file.
      const at = Math.min(resolvedAt, Math.floor(mtimeMs));
      catalog.rememberTag({ registry, repository, tag, descriptor, resolvedAt: at, heard });
      await relearn(deps, descriptor, { registry, repository }, 0);
      restored += 1;
    }
  } catch (error) {
    logger.warn({ err: error }, "not all tags could be read back from index.json");
  }
  if (restored > 0) logger.info({ tags: restored }, "tags were read back from index.json");
}

/** Indexes of indexes exist, but not this deep. */
const MAX_DEPTH = 4;

async function relearn(
  deps: RecoveryDeps,
  descriptor: Descriptor,
  origin: Repository,
  depth: number,
): Promise<void> {
  const { layout, index, catalog } = deps;
  const { digest, mediaType } = descriptor;
  const entry = index.get(digest);
  if (entry === undefined || entry.size > MAX_MANIFEST_BYTES || !isManifestType(mediaType)) return;
  const bytes = await fs.readFile(layout.blobPath(digest));
  if (digestOf(bytes, algorithmOf(digest)) !== digest) return;
  const manifest = parseManifest(bytes);
  catalog.learnManifest({ digest, size: entry.size, mediaType }, manifest, origin);
  if (depth === MAX_DEPTH) return;
  for (const child of manifest.manifests) await relearn(deps, child, origin, depth + 1);
}

/** Entries of an index.json with a name and a valid descriptor. Of unknown time: 0, which no other record loses to. */
function* readIndex(
  text: string,
): Generator<{ descriptor: Descriptor; name: string; resolvedAt: number; heard: string | undefined }> {
  const json: unknown = JSON.parse(text);
  const manifests: unknown = isRecord(json) ? json["manifests"] : undefined;
  if (!Array.isArray(manifests)) return;
  const entries: readonly unknown[] = manifests;
  for (const one of entries) {
    if (!isRecord(one)) continue;
    const { digest, size, mediaType, annotations } = one;
    const annotation = (key: string): unknown => (isRecord(annotations) ? annotations[key] : undefined);
    const name = annotation("org.opencontainers.image.ref.name");
    if (typeof digest !== "string" || !isDigest(digest) || typeof name !== "string") continue;
    if (typeof size !== "number" || typeof mediaType !== "string") continue;
    const [time, heard] = [annotation(RESOLVED_AT), annotation(HEARD)];
    const resolvedAt = typeof time === "string" ? Date.parse(time) : 0;
    yield {
      descriptor: { digest, size, mediaType },
      name,
      resolvedAt: resolvedAt > 0 ? resolvedAt : 0,
      heard: typeof heard === "string" ? heard : undefined,
    };
  }
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
