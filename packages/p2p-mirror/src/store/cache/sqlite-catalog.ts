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
/** Rows kept of what was proven and of what manifests named, the longest unseen out first: some 80 MiB of SQLite. */
const MAX_DESCRIPTORS = 50_000;
const MAX_NAMED = 100_000;
/** Tags, referrers and public repositories kept, each; what is held stays beyond that. */
const MAX_NAMES = 50_000;
/** Manifests of one digest whose holders are worth a try: a base layer has hundreds. */
const MAX_PARENTS = 8;
/** Of an image, counted for its size. */
const MAX_PARTS = 4_096;

const PROVE = `INSERT INTO descriptors (digest, size, media_type, seen_at) VALUES (?, ?, ?, ?)
  ON CONFLICT (digest) DO UPDATE SET
    size = excluded.size,
    media_type = CASE excluded.media_type WHEN '${MEDIA_TYPES.octetStream}' THEN media_type ELSE excluded.media_type END,
    seen_at = excluded.seen_at`;
/** A row that is replaced gets a new rowid: the highest is the latest. */
const NAME = `INSERT OR REPLACE INTO named (digest, registry, repository, parent, size, media_type, seen_at)
  VALUES (?, ?, ?, ?, ?, ?, ?)`;
const NAMED_IN = `SELECT size, media_type FROM named WHERE digest = ? AND registry = ? AND repository = ?
  ORDER BY rowid DESC LIMIT 1`;
const HELD_SIZE = `WITH RECURSIVE part (digest) AS (
    VALUES (?) UNION SELECT named.digest FROM part JOIN named ON named.parent = part.digest LIMIT ${MAX_PARTS}
  ) SELECT sum(blobs.size) AS size FROM part JOIN blobs USING (digest)`;

const NOT_HELD = "(digest NOT IN (SELECT digest FROM blobs))";
const NEWEST_FIRST = "ORDER BY resolved_at DESC, registry, repository, tag";

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

  describe(digest: Digest, { registry, repository }: Repository): Descriptor | undefined {
    const { db, index } = this.#deps;
    const proven = db.get("SELECT size, media_type FROM descriptors WHERE digest = ?", digest);
    const named = db.get(NAMED_IN, digest, registry, repository);
    // A manifest may lie about a size; the file does not.
    const size = index.get(digest)?.size ?? proven?.["size"] ?? named?.["size"];
    if (size === undefined) return undefined;
    const types = [proven, named].map((row) => row?.["media_type"]);
    const mediaType = types.find((type) => type !== undefined && type !== MEDIA_TYPES.octetStream);
    return { digest, size: Number(size), mediaType: String(mediaType ?? MEDIA_TYPES.octetStream) };
  }

  learnManifest(descriptor: Descriptor, manifest: Manifest, origin: Repository): void {
    const now = this.#deps.now();
    const children = [...manifest.manifests, ...manifest.blobs].slice(0, MAX_CHILDREN);
    this.#deps.db.transaction((run) => {
      run(PROVE, descriptor.digest, descriptor.size, descriptor.mediaType, now);
      for (const { digest, size, mediaType } of children) {
        run(NAME, digest, origin.registry, origin.repository, descriptor.digest, size, mediaType, now);
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
  prove({ digest, size, mediaType }: Descriptor): void {
    this.#deps.db.run(PROVE, digest, size, mediaType, this.#deps.now());
  }

  parentsOf(digest: Digest): Digest[] {
    return this.#deps.db
      .all("SELECT parent FROM named WHERE digest = ? ORDER BY rowid DESC LIMIT ?", digest, MAX_PARENTS)
      .map((row) => String(row["parent"]))
      .filter(isDigest);
  }

  heldSize(digest: Digest): number {
    return Number(this.#deps.db.get(HELD_SIZE, digest)?.["size"] ?? 0);
  }

  rememberTag({ registry, repository, tag, descriptor, resolvedAt, heard }: TagEntry): void {
    const { digest, size, mediaType } = descriptor;
    const before = this.tag({ registry, repository }, tag);
    this.#deps.db.run(
      `INSERT OR REPLACE INTO tags (registry, repository, tag, digest, size, media_type, resolved_at, heard)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
      registry,
      repository,
      tag,
      digest,
      size,
      mediaType,
      resolvedAt,
      heard ?? null,
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

  rememberPublic({ registry, repository }: Repository, at: number | undefined, heard?: string): void {
    const { db } = this.#deps;
    if (at === undefined) {
      db.run("DELETE FROM publics WHERE registry = ? AND repository = ?", registry, repository);
    } else {
      const values = [registry, repository, at, heard ?? null];
      db.run(
        "INSERT OR REPLACE INTO publics (registry, repository, seen_at, heard) VALUES (?, ?, ?, ?)",
        ...values,
      );
    }
  }

  publicSince(repository: Repository): number | undefined {
    const row = this.#public(repository);
    return row === undefined ? undefined : Number(row["seen_at"]);
  }

  publicHeard(repository: Repository): string | undefined {
    return textOf(this.#public(repository)?.["heard"]);
  }

  #public({ registry, repository }: Repository): Row | undefined {
    return this.#deps.db.get(
      "SELECT seen_at, heard FROM publics WHERE registry = ? AND repository = ?",
      registry,
      repository,
    );
  }

  images(limit?: number): TagEntry[] {
    if (limit === undefined) return this.tryImages() ?? [];
    return this.#deps.db
      .all(`SELECT * FROM tags WHERE NOT ${NOT_HELD} ${NEWEST_FIRST} LIMIT ?`, limit)
      .map(readTag)
      .filter((entry) => entry !== undefined);
  }

  /** Undefined when the database cannot say, which is not the same as none. */
  tryImages(): TagEntry[] | undefined {
    return this.#deps.db
      .tryAll(`SELECT * FROM tags ${NEWEST_FIRST}`)
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
  prune({ descriptors = MAX_DESCRIPTORS, named = MAX_NAMED, names = MAX_NAMES } = {}): void {
    this.#prune("descriptors", "seen_at", descriptors, NOT_HELD);
    this.#prune("named", "seen_at", named, "TRUE");
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
  const heard = textOf(row["heard"]);
  if (descriptor === undefined) return undefined;
  return {
    registry: String(row["registry"]),
    repository: String(row["repository"]),
    tag: String(row["tag"]),
    descriptor,
    resolvedAt: Number(row["resolved_at"]),
    ...(heard === undefined ? {} : { heard }),
  };
}

const textOf = (value: Row[string] | undefined): string | undefined =>
  typeof value === "string" ? value : undefined;

function readReferrer(row: Row): Referrer | undefined {
  const descriptor = readDescriptor(row);
  if (descriptor === undefined) return undefined;
  const annotations = textOf(row["annotations"]);
  return {
    ...descriptor,
    artifactType: textOf(row["artifact_type"]),
    annotations: annotations === undefined ? undefined : readAnnotations(annotations),
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
