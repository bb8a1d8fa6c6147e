import fs from "node:fs/promises";
import { dirname } from "node:path";
import { DatabaseSync, type SQLInputValue, type SQLOutputValue, type StatementSync } from "node:sqlite";
import { CodedError, type Logger } from "@p2p-mirror/shared";
import { SCHEMA, SCHEMA_VERSION } from "./schema.ts";

export type Row = Record<string, SQLOutputValue>;

/** SQLite result codes (sqlite.org/rescode.html), without the extended part. */
const SQLITE_BUSY = 5;
const SQLITE_CORRUPT = 11;
const SQLITE_FULL = 13;
const SQLITE_NOTADB = 26;

const resultCode = (error: unknown): number | undefined =>
  error instanceof Error && "errcode" in error && typeof error.errcode === "number"
    ? error.errcode & 0xff
    : undefined;

/** Another process has the directory; starting would empty its ingests under it. */
export class CacheInUseError extends CodedError {
  override readonly name = "CacheInUseError";
  readonly code = "CACHE_IN_USE";
  readonly dir: string;

  constructor(dir: string, options?: ErrorOptions) {
    super(`another process uses the cache directory ${dir}`, options);
    this.dir = dir;
  }
}

export interface IndexDbDeps {
  readonly logger: Logger;
  /** A statement failed (disk full, I/O error): counted, and the cache goes on from memory. */
  readonly onError: (error: unknown) => void;
}

/**
 * The SQLite file behind the cache. It is an index and never the truth: what it lost is found again on disk, so a
 * statement that fails is logged and counted but does not fail the pull that caused it, and a broken file is set aside.
 * It is opened in exclusive mode, which also keeps a second process out of the directory.
 */
export class IndexDb {
  readonly #path: string;
  readonly #deps: IndexDbDeps;
  readonly #statements = new Map<string, StatementSync>();
  #db: DatabaseSync | undefined;
  #complaining = false;
  #broken = false;

  constructor(path: string, deps: IndexDbDeps) {
    this.#path = path;
    this.#deps = deps;
  }

  /**
   * Opens or makes the file. Resolves `kept` when what was known is known again, `new` when it has to be filled from what
   * is on disk, `memory` when the disk is full: then it is filled as well, and lost at the end.
   * @throws CacheInUseError
   */
  async open(options: { readonly diskFull: boolean }): Promise<"kept" | "new" | "memory"> {
    if (options.diskFull) return this.#openMemory();
    const existed = await fs.stat(this.#path).then(
      (stats) => stats.size > 0,
      () => false,
    );
    try {
      this.#db = await this.#openFile();
      return existed ? "kept" : "new";
    } catch (error) {
      if (resultCode(error) === SQLITE_BUSY) throw new CacheInUseError(dirname(this.#path), { cause: error });
      if (resultCode(error) === SQLITE_FULL) return this.#openMemory();
      // SQLite names no file, and whoever reads this has to find it.
      if (!isBroken(error)) {
        throw new Error(`the cache index ${this.#path} cannot be opened`, { cause: error });
      }
      this.#deps.logger.warn(
        { err: error, database: this.#path },
        "the cache index is broken or of another version: it is set aside and rebuilt from the blobs",
      );
    }
    await this.#setAside();
    this.#db = await this.#openFile();
    return "new";
  }

  /**
   * Sets a file aside that turned out broken while in use, and makes a new one. False when there was nothing to repair;
   * otherwise the caller fills it again. Until then every answer is the one of an empty index.
   */
  async repair(): Promise<boolean> {
    if (!this.#broken) return false;
    this.close();
    await this.#setAside();
    this.#db = await this.#openFile();
    this.#broken = false;
    return true;
  }

  #openMemory(): "memory" {
    this.#deps.logger.warn(
      { database: this.#path },
      "the disk is too full for the cache index: kept in memory",
    );
    this.#db = new DatabaseSync(":memory:");
    this.#db.exec(SCHEMA);
    return "memory";
  }

  async #openFile(): Promise<DatabaseSync> {
    // A log that is still there says that the last process did not come to its end.
    const crashed = await fs.stat(`${this.#path}-wal`).then(
      (stats) => stats.size > 0,
      () => false,
    );
    const db = new DatabaseSync(this.#path);
    try {
      // The first write takes the lock for good: until the process ends nobody else gets in.
      db.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;");
      db.exec("BEGIN EXCLUSIVE; COMMIT");
      const version = Number(db.prepare("PRAGMA user_version").get()?.["user_version"]);
      if (version === 0) {
        db.exec(`BEGIN; ${SCHEMA} PRAGMA user_version = ${SCHEMA_VERSION}; COMMIT`);
      } else if (version !== SCHEMA_VERSION) {
        throw new WrongVersionError(version);
      }
      const check = crashed ? db.prepare("PRAGMA quick_check(1)").get()?.["quick_check"] : "ok";
      if (check !== "ok") throw new BrokenIndexError(String(check));
      // Every row the start reads: a file cut short or overwritten shows here, where it can still be set aside.
      for (const table of ["blobs", "links", "tags"]) db.prepare(`SELECT * FROM ${table}`).all();
      return db;
    } catch (error) {
      db.close();
      throw error;
    }
  }

  /** One broken copy is kept for whoever wants to know why; it cannot pile up. */
  async #setAside(): Promise<void> {
    for (const suffix of ["", "-wal", "-shm", "-journal"]) {
      await fs.rm(`${this.#path}.broken${suffix}`, { force: true, recursive: true });
      await fs.rename(this.#path + suffix, `${this.#path}.broken${suffix}`).catch(() => undefined);
    }
  }

  get(sql: string, ...parameters: SQLInputValue[]): Row | undefined {
    return this.#attempt(() => this.#prepare(sql).get(...parameters), undefined);
  }

  all(sql: string, ...parameters: SQLInputValue[]): Row[] {
    return this.tryAll(sql, ...parameters) ?? [];
  }

  /** Undefined when the database cannot say. */
  tryAll(sql: string, ...parameters: SQLInputValue[]): Row[] | undefined {
    return this.#attempt<Row[] | undefined>(() => this.#prepare(sql).all(...parameters), undefined);
  }

  /** False when it failed (and was undone). */
  run(sql: string, ...parameters: SQLInputValue[]): boolean {
    return this.#attempt(() => {
      this.#prepare(sql).run(...parameters);
      return true;
    }, false);
  }

  /** All of it or nothing; false when it failed. Statements inside throw. */
  transaction(body: (run: (sql: string, ...parameters: SQLInputValue[]) => void) => void): boolean {
    return this.#attempt(() => {
      const db = this.#open();
      db.exec("BEGIN");
      try {
        body((sql, ...parameters) => void this.#prepare(sql).run(...parameters));
        db.exec("COMMIT");
      } catch (error) {
        if (db.isTransaction) db.exec("ROLLBACK");
        throw error;
      }
      return true;
    }, false);
  }

  /**
   * Makes what was written so far survive a power cut. `synchronous = NORMAL` syncs the write-ahead log only at
   * checkpoints; its frames carry checksums, so an fsync from the thread pool does the same without blocking the loop.
   */
  async flush(): Promise<void> {
    try {
      const handle = await fs.open(`${this.#path}-wal`, "r");
      try {
        await handle.datasync();
      } finally {
        await handle.close();
      }
    } catch {
      // No log: nothing was written since the last checkpoint.
    }
  }

  close(): void {
    this.#statements.clear();
    const db = this.#db;
    this.#db = undefined;
    db?.close();
  }

  #open(): DatabaseSync {
    if (this.#db === undefined) throw new Error("the cache index is not open");
    return this.#db;
  }

  #prepare(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#open().prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  #attempt<T>(statement: () => T, otherwise: T): T {
    try {
      const result = statement();
      this.#complaining = false;
      return result;
    } catch (error) {
      this.#deps.onError(error);
      this.#broken ||= isBroken(error);
      if (!this.#complaining) {
        this.#complaining = true;
        this.#deps.logger.warn({ err: error }, "the cache index cannot be used now: going on without");
      }
      return otherwise;
    }
  }
}

class WrongVersionError extends Error {
  constructor(version: number) {
    super(`schema version ${version}, this program has ${SCHEMA_VERSION}`);
  }
}

class BrokenIndexError extends Error {}

function isBroken(error: unknown): boolean {
  if (error instanceof WrongVersionError || error instanceof BrokenIndexError) return true;
  const code = resultCode(error);
  return code === SQLITE_CORRUPT || code === SQLITE_NOTADB;
}
