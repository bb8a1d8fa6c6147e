import type { Descriptor, Digest, Manifest, Repository } from "@p2p-mirror/shared";

/** A tag as upstream last told it, to this node or to another. */
export interface TagEntry extends Repository {
  readonly tag: string;
  readonly descriptor: Descriptor;
  /** Milliseconds since the epoch, when upstream said so, by the clock of the node that was told. */
  readonly resolvedAt: number;
  /** The record of the node that was told, as it signed it; undefined: this node was told itself. */
  readonly heard?: string | undefined;
}

/**
 * Port: what this node knows about content besides the bytes, kept over restarts. Sizes come from manifests, so that
 * blobs need no HEAD (DESIGN: one flight per digest).
 */
export interface Catalog {
  /**
   * Size and media type of a digest as its bytes had them when they were here, else as a manifest of `repository` says.
   * What other repositories say of it does not count: whoever can push anywhere could make it unpullable.
   */
  describe(digest: Digest, repository: Repository): Descriptor | undefined;

  /** Remembers a verified manifest of `origin`, and the sizes of everything it names. */
  learnManifest(descriptor: Descriptor, manifest: Manifest, origin: Repository): void;

  /** Manifests that name this digest, the latest first, a few: whoever holds one of them most likely holds this. */
  parentsOf(digest: Digest): Digest[];

  /** Bytes held of a manifest and of all it names, as far as that is known. */
  heldSize(digest: Digest): number;

  rememberTag(entry: TagEntry): void;
  tag(repository: Repository, tag: string): TagEntry | undefined;
  tagsOf(repository: Repository): string[];
  /**
   * When (milliseconds since the epoch) upstream last said that it gives this repository to anonymous clients;
   * `undefined` takes it back. `heard` as of TagEntry.
   */
  rememberPublic(repository: Repository, at: number | undefined, heard?: string): void;
  publicSince(repository: Repository): number | undefined;
  /** The signed record that `publicSince` is by, where this node was not told itself. */
  publicHeard(repository: Repository): string | undefined;

  /** Everything held that has a tag, newest first (the `ls` command); at most `limit`. */
  images(limit?: number): TagEntry[];

  /** Manifests of the repository whose `subject` is the digest (OCI distribution 1.1, "Listing Referrers"). */
  referrersOf(
    repository: Repository,
    subject: Digest,
  ): (Descriptor & {
    artifactType?: string | undefined;
    annotations?: Readonly<Record<string, string>> | undefined;
  })[];
}
