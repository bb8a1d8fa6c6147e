import { isDigest, type Digest, type Repository } from "@p2p-mirror/shared";
import type { IndexDb } from "./index-db.ts";

export interface BlobEntry {
  readonly digest: Digest;
  readonly size: number;
  /** Milliseconds since the epoch. */
  lastUse: number;
  /** When it was last hashed and found right; 0: never. */
  verifiedAt: number;
  /** Registries whose bytes these are; several may have given the same blob. */
  readonly registries: Set<string>;
}

const UPSERT = `INSERT INTO blobs (digest, size, last_use, verified_at) VALUES (?, ?, ?, ?)
  ON CONFLICT (digest) DO UPDATE SET size = excluded.size, last_use = excluded.last_use, verified_at = excluded.verified_at`;
const LINK = "INSERT OR IGNORE INTO links (digest, registry, repository) VALUES (?, ?, ?)";

/**
 * Which blobs are held, least recently used first. Memory answers (no query on the way to a byte), SQLite remembers;
 * last uses are written in batches.
 */
export class BlobIndex {
  readonly #db: IndexDb;
  /** In the order of last use: a used entry moves to the end. */
  readonly #entries = new Map<Digest, BlobEntry>();
  readonly #bytesOf = new Map<string, number>();
  readonly #dirty = new Set<Digest>();
  #bytes = 0;

  constructor(db: IndexDb) {
    this.#db = db;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get count(): number {
    return this.#entries.size;
  }

  /** Bytes of the blobs this registry gave; a blob of two registries counts for both. */
  bytesOf(registry: string): number {
    return this.#bytesOf.get(registry) ?? 0;
  }

  /** Reads the table. */
  load(): void {
    const registries = new Map<string, Set<string>>();
    for (const row of this.#db.all("SELECT DISTINCT digest, registry FROM links")) {
      const digest = String(row["digest"]);
      const known = registries.get(digest) ?? new Set();
      registries.set(digest, known.add(String(row["registry"])));
    }
    for (const row of this.#db.all(
      "SELECT digest, size, last_use, verified_at FROM blobs ORDER BY last_use",
    )) {
      const digest = String(row["digest"]);
      if (!isDigest(digest)) continue;
      this.#insert({
        digest,
        size: Number(row["size"]),
        lastUse: Number(row["last_use"]),
        verifiedAt: Number(row["verified_at"]),
        registries: registries.get(digest) ?? new Set(),
      });
    }
  }

  get(digest: Digest): BlobEntry | undefined {
    return this.#entries.get(digest);
  }

  has(digest: Digest): boolean {
    return this.#entries.has(digest);
  }

  /** Least recently used first. Entries added or used while iterating come at the end. */
  entries(): MapIterator<BlobEntry> {
    return this.#entries.values();
  }

  /** A blob whose bytes were just verified. Returns false when it was there already. */
  add(digest: Digest, size: number, origin: Repository | undefined, now: number): boolean {
    const before = this.#entries.get(digest);
    if (before !== undefined) this.#drop(before);
    const registries = before?.registries ?? new Set<string>();
    if (origin !== undefined) registries.add(origin.registry);
    this.#insert({ digest, size, lastUse: now, verifiedAt: now, registries });
    this.#db.transaction((run) => {
      run(UPSERT, digest, size, now, now);
      if (origin !== undefined) run(LINK, digest, origin.registry, origin.repository);
    });
    return before === undefined;
  }

  /** A blob that is held already came from this repository as well; counts as a use. */
  link(digest: Digest, origin: Repository, now: number): void {
    const entry = this.#entries.get(digest);
    if (entry === undefined) return;
    if (!entry.registries.has(origin.registry)) {
      entry.registries.add(origin.registry);
      this.#addBytes(origin.registry, entry.size);
    }
    this.#db.run(LINK, digest, origin.registry, origin.repository);
    this.touch(digest, now);
  }

  /** Files found on disk that the table did not know: never hashed, of unknown origin. */
  adopt(found: readonly { digest: Digest; size: number; lastUse: number }[]): void {
    for (const { digest, size, lastUse } of found) {
      this.#insert({ digest, size, lastUse, verifiedAt: 0, registries: new Set() });
    }
    this.#sort();
    this.#db.transaction((run) => {
      for (const { digest, size, lastUse } of found) run(UPSERT, digest, size, lastUse, 0);
    });
  }

  remove(digest: Digest): boolean {
    const entry = this.#entries.get(digest);
    if (entry === undefined) return false;
    this.#drop(entry);
    this.#db.transaction((run) => {
      run("DELETE FROM blobs WHERE digest = ?", digest);
      run("DELETE FROM links WHERE digest = ?", digest);
    });
    return true;
  }

  /** The blob stays, but no longer for this registry's sake. */
  unlink(digest: Digest, registry: string): void {
    const entry = this.#entries.get(digest);
    if (entry === undefined || !entry.registries.delete(registry)) return;
    this.#addBytes(registry, -entry.size);
    this.#db.run("DELETE FROM links WHERE digest = ? AND registry = ?", digest, registry);
  }

  touch(digest: Digest, now: number): void {
    const entry = this.#entries.get(digest);
    if (entry === undefined) return;
    entry.lastUse = now;
    this.#entries.delete(digest);
    this.#entries.set(digest, entry);
    this.#dirty.add(digest);
  }

  verified(digest: Digest, now: number): void {
    const entry = this.#entries.get(digest);
    if (entry === undefined) return;
    entry.verifiedAt = now;
    this.#dirty.add(digest);
  }

  /** Writes the uses and verifications since the last call. */
  saveUses(): void {
    const entries = [...this.#dirty]
      .map((digest) => this.#entries.get(digest))
      .filter((one) => one !== undefined);
    this.#dirty.clear();
    if (entries.length === 0) return;
    this.#db.transaction((run) => {
      for (const { digest, size, lastUse, verifiedAt } of entries)
        run(UPSERT, digest, size, lastUse, verifiedAt);
    });
  }

  /** Writes everything, into a database that was made anew. Where the bytes came from is lost. */
  saveAll(): void {
    for (const digest of this.#entries.keys()) this.#dirty.add(digest);
    this.saveUses();
  }

  /** Repositories the blob's bytes came from. */
  origins(digest: Digest): Repository[] {
    return this.#db
      .all("SELECT registry, repository FROM links WHERE digest = ? ORDER BY registry, repository", digest)
      .map((row) => ({ registry: String(row["registry"]), repository: String(row["repository"]) }));
  }

  #insert(entry: BlobEntry): void {
    this.#entries.set(entry.digest, entry);
    this.#bytes += entry.size;
    for (const registry of entry.registries) this.#addBytes(registry, entry.size);
  }

  #drop(entry: BlobEntry): void {
    this.#entries.delete(entry.digest);
    this.#dirty.delete(entry.digest);
    this.#bytes -= entry.size;
    for (const registry of entry.registries) this.#addBytes(registry, -entry.size);
  }

  #addBytes(registry: string, bytes: number): void {
    this.#bytesOf.set(registry, this.bytesOf(registry) + bytes);
  }

  #sort(): void {
    const sorted = [...this.#entries.values()].toSorted((a, b) => a.lastUse - b.lastUse);
    this.#entries.clear();
    for (const entry of sorted) this.#entries.set(entry.digest, entry);
  }
}
