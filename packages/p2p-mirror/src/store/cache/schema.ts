/** Raised with every change of `SCHEMA`; a file of another version is rebuilt from the blobs. */
export const SCHEMA_VERSION = 3;

/**
 * Times are milliseconds since the epoch. `links`: the blob's bytes came from this repository. `descriptors`: what
 * bytes proved of digests, held or not. `named`: what a manifest of a repository says of others, which may be a lie: it
 * counts for that repository only. `publics`: repositories that upstream gave to anonymous clients. `heard`: the signed
 * record of another node, where upstream told that one and not this.
 */
export const SCHEMA = `
CREATE TABLE blobs (
  digest TEXT PRIMARY KEY, size INTEGER NOT NULL, last_use INTEGER NOT NULL, verified_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE links (
  digest TEXT NOT NULL, registry TEXT NOT NULL, repository TEXT NOT NULL,
  PRIMARY KEY (digest, registry, repository)
) STRICT, WITHOUT ROWID;

CREATE TABLE descriptors (
  digest TEXT PRIMARY KEY, size INTEGER NOT NULL, media_type TEXT NOT NULL, seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX descriptors_seen ON descriptors (seen_at);

CREATE TABLE named (
  digest TEXT NOT NULL, registry TEXT NOT NULL, repository TEXT NOT NULL, parent TEXT NOT NULL,
  size INTEGER NOT NULL, media_type TEXT NOT NULL, seen_at INTEGER NOT NULL,
  PRIMARY KEY (digest, registry, repository, parent)
) STRICT;
CREATE INDEX named_parent ON named (parent);
CREATE INDEX named_seen ON named (seen_at);

CREATE TABLE tags (
  registry TEXT NOT NULL, repository TEXT NOT NULL, tag TEXT NOT NULL,
  digest TEXT NOT NULL, size INTEGER NOT NULL, media_type TEXT NOT NULL, resolved_at INTEGER NOT NULL,
  heard TEXT,
  PRIMARY KEY (registry, repository, tag)
) STRICT, WITHOUT ROWID;

CREATE TABLE referrers (
  registry TEXT NOT NULL, repository TEXT NOT NULL, subject TEXT NOT NULL, digest TEXT NOT NULL,
  size INTEGER NOT NULL, media_type TEXT NOT NULL, artifact_type TEXT, annotations TEXT, seen_at INTEGER NOT NULL,
  PRIMARY KEY (registry, repository, subject, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE publics (
  registry TEXT NOT NULL, repository TEXT NOT NULL, seen_at INTEGER NOT NULL, heard TEXT,
  PRIMARY KEY (registry, repository)
) STRICT, WITHOUT ROWID;

CREATE TABLE outages (
  registry TEXT NOT NULL, started INTEGER NOT NULL, ended INTEGER NOT NULL,
  PRIMARY KEY (registry, started)
) STRICT, WITHOUT ROWID;
`;
