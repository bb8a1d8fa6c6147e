import {
  isDigest,
  MEDIA_TYPES,
  type Descriptor,
  type Digest,
  type Manifest,
  type Repository,
} from "@p2p-mirror/shared";
import type { Catalog, TagEntry } from "../catalog.ts";
import type { BlobIndex } from "./blob-index.ts";
import type { IndexDb, Row } from "./index-db.ts";

/** Children learned of one manifest. Real ones name some hundred at most; a 4 MiB one made for the purpose, 40,000. */
const MAX_CHILDREN = 4_096;
/** Rows kept of what manifests named, the least recently seen out first: some 40 MiB of SQLite. */
const MAX_DESCRIPTORS = 200_000;
/** Tags, referrers and public repositories kept, each; what is held stays beyond that. */
const MAX_NAMES = 50_000;

const LEARN = `INSERT INTO descriptors (digest, size, media_type, proven, parent, seen_at) VALUES (?, ?, ?, ?, ?, ?)
  ON CONFLICT (digest) DO UPDATE SET
    size = CASE WHEN proven > excluded.proven THEN size ELSE excluded.size END,
    media_type = CASE
      WHEN media_type = '${MEDIA_TYPES.octetStream}' THEN excluded.media_type
      WHEN proven > excluded.proven OR excluded.media_type = '${MEDIA_TYPES.octetStream}' THEN media_type
      ELSE excluded.media_type END,
    parent = coalesce(excluded.parent, parent),
    proven = max(proven, excluded.proven),
    seen_at = excluded.seen_at`;

export type Referrer = ReturnType<Catalog["referrersOf"]>[number];

export interface SqliteCatalogDeps {
  readonly db: IndexDb;
  readonly index: BlobIndex;
  readonly now: () => number;
  /** A tag was learned or moved. */
  readonly onChange: () => void;
}

/** What is known about content, in SQLite. What the database cannot say now is as if it were not known. */
export class SqliteCatalog implements Catalog {
  readonly #deps: SqliteCatalogDeps;

  constructor(deps: SqliteCatalogDeps) {
    this.#deps = deps;
  }

  describe(digest: Digest): Descriptor | undefined {
    const held = this.#deps.index.get(digest);
    const row = this.#deps.db.get("SELECT size, media_type FROM descriptors WHERE digest = ?", digest);
    if (row === undefined) {
      return held === undefined ? undefined : { digest, size: held.size, mediaType: MEDIA_TYPES.octetStream };
    }
    // A manifest may lie about a size; the file does not.
    return { digest, size: held?.size ?? Number(row["size"]), mediaType: String(row["media_type"]) };
  }

  learnManifest(descriptor: Descriptor, manifest: Manifest, origin: Repository): void {
    const now = this.#deps.now();
    const children = [...manifest.manifests, ...manifest.blobs].slice(0, MAX_CHILDREN);
    this.#deps.db.transaction((run) => {
      run(LEARN, descriptor.digest, descriptor.size, descriptor.mediaType, 1, null, now);
      for (const child of children) {
        run(LEARN, child.digest, child.size, child.mediaType, 0, descriptor.digest, now);
      }
      if (manifest.subject === undefined) return;
      run(
        `INSERT OR REPLACE INTO referrers (registry, repository, subject, digest, size, media_type, artifact_type,
           annotations, seen_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
        origin.registry,
        origin.repository,
        manifest.subject.digest,
        descriptor.digest,
        descriptor.size,
        descriptor.mediaType,
        artifactTypeOf(manifest) ?? null,
        manifest.annotations === undefined ? null : JSON.stringify(manifest.annotations),
        now,
      );
    });
  }

  /** The bytes of a blob were verified: its size is no longer hearsay. */
  prove(descriptor: Descriptor): void {
    this.#deps.db.run(
      LEARN,
      descriptor.digest,
      descriptor.size,
      descriptor.mediaType,
      1,
      null,
      this.#deps.now(),
    );
  }

  parentOf(digest: Digest): Digest | undefined {
    const parent = this.#deps.db.get("SELECT parent FROM descriptors WHERE digest = ?", digest)?.["parent"];
    return typeof parent === "string" && isDigest(parent) ? parent : undefined;
  }

  rememberTag({ registry, repository, tag, descriptor, resolvedAt }: TagEntry): void {
    const { digest, size, mediaType } = descriptor;
    const before = this.tag({ registry, repository }, tag);
    this.#deps.db.run(
      `INSERT OR REPLACE INTO tags (registry, repository, tag, digest, size, media_type, resolved_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)`,
      registry,
      repository,
      tag,
      digest,
      size,
      mediaType,
      resolvedAt,
    );
    if (before?.descriptor.digest !== digest) this.#deps.onChange();
  }

  tag({ registry, repository }: Repository, tag: string): TagEntry | undefined {
    const row = this.#deps.db.get(
      "SELECT * FROM tags WHERE registry = ? AND repository = ? AND tag = ?",
      registry,
      repository,
      tag,
    );
    return row === undefined ? undefined : readTag(row);
  }

  tagsOf({ registry, repository }: Repository): string[] {
    return this.#deps.db
      .all("SELECT tag FROM tags WHERE registry = ? AND repository = ? ORDER BY tag", registry, repository)
      .map((row) => String(row["tag"]));
  }

  rememberPublic({ registry, repository }: Repository, at: number | undefined): void {
    if (at === undefined) {
      this.#deps.db.run("DELETE FROM publics WHERE registry = ? AND repository = ?", registry, repository);
    } else {
      this.#deps.db.run("INSERT OR REPLACE INTO publics VALUES (?, ?, ?)", registry, repository, at);
    }
  }

  publicSince({ registry, repository }: Repository): number | undefined {
    const row = this.#deps.db.get(
      "SELECT seen_at FROM publics WHERE registry = ? AND repository = ?",
      registry,
      repository,
    );
    return row === undefined ? undefined : Number(row["seen_at"]);
  }

  images(): TagEntry[] {
    return this.tryImages() ?? [];
  }

  /** Undefined when the database cannot say, which is not the same as none. */
  tryImages(): TagEntry[] | undefined {
    return this.#deps.db
      .tryAll("SELECT * FROM tags ORDER BY resolved_at DESC, registry, repository, tag")
      ?.map(readTag)
      .filter((entry) => entry !== undefined)
      .filter((entry) => this.#deps.index.has(entry.descriptor.digest));
  }

  referrersOf({ registry, repository }: Repository, subject: Digest): Referrer[] {
    return this.#deps.db
      .all(
        "SELECT * FROM referrers WHERE registry = ? AND repository = ? AND subject = ? ORDER BY digest",
        registry,
        repository,
        subject,
      )
      .map(readReferrer)
      .filter((referrer) => referrer !== undefined);
  }

  /** Drops what is beyond the bounds, least recently seen first; what is held stays. */
  prune({ descriptors = MAX_DESCRIPTORS, names = MAX_NAMES } = {}): void {
    this.#prune("descriptors", "seen_at", descriptors, NOT_HELD);
    this.#prune("tags", "resolved_at", names, NOT_HELD);
    this.#prune("referrers", "seen_at", names, NOT_HELD);
    this.#prune("publics", "seen_at", names, "TRUE");
  }

  #prune(table: string, age: string, max: number, where: string): void {
    const count = Number(this.#deps.db.get(`SELECT count(*) AS n FROM ${table}`)?.["n"] ?? 0);
    if (count <= max) return;
    const newestToGo = `SELECT ${age} FROM ${table} WHERE ${where} ORDER BY ${age} LIMIT 1 OFFSET ?`;
    this.#deps.db.run(`DELETE FROM ${table} WHERE ${where} AND ${age} <= (${newestToGo})`, count - max - 1);
  }
}

const NOT_HELD = "digest NOT IN (SELECT digest FROM blobs)";

/** OCI image spec, manifest.md: without `artifactType`, the type of an image manifest is that of its config. */
function artifactTypeOf(manifest: Manifest): string | undefined {
  if (manifest.artifactType !== undefined) return manifest.artifactType;
  return manifest.mediaType === MEDIA_TYPES.ociManifest ? manifest.blobs[0]?.mediaType : undefined;
}

function readDescriptor(row: Row): Descriptor | undefined {
  const digest = String(row["digest"]);
  if (!isDigest(digest)) return undefined;
  return { digest, size: Number(row["size"]), mediaType: String(row["media_type"]) };
}

function readTag(row: Row): TagEntry | undefined {
  const descriptor = readDescriptor(row);
  if (descriptor === undefined) return undefined;
  return {
    registry: String(row["registry"]),
    repository: String(row["repository"]),
    tag: String(row["tag"]),
    descriptor,
    resolvedAt: Number(row["resolved_at"]),
  };
}

function readReferrer(row: Row): Referrer | undefined {
  const descriptor = readDescriptor(row);
  if (descriptor === undefined) return undefined;
  const artifactType = row["artifact_type"];
  const annotations = row["annotations"];
  return {
    ...descriptor,
    artifactType: typeof artifactType === "string" ? artifactType : undefined,
    annotations: typeof annotations === "string" ? readAnnotations(annotations) : undefined,
  };
}

function readAnnotations(text: string): Record<string, string> {
  const json: unknown = JSON.parse(text);
  if (typeof json !== "object" || json === null) return {};
  const entries = Object.entries(json).filter(
    (entry): entry is [string, string] => typeof entry[1] === "string",
  );
  return Object.fromEntries(entries);
}
