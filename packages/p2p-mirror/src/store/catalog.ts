import type { Descriptor, Digest, Manifest, Repository } from "@p2p-mirror/shared";

/** A tag as this node last saw it at upstream. */
export interface TagEntry extends Repository {
  readonly tag: string;
  readonly descriptor: Descriptor;
  /** Milliseconds since the epoch, by this node's clock, when upstream said so. */
  readonly resolvedAt: number;
}

/**
 * Port: what this node knows about content besides the bytes, kept over restarts. Sizes come from manifests, so that
 * blobs need no HEAD (DESIGN: one flight per digest).
 */
export interface Catalog {
  /** Size and media type of a digest that some manifest named, or that was held here. */
  describe(digest: Digest): Descriptor | undefined;

  /** Remembers a verified manifest of `origin`, and the sizes of everything it names. */
  learnManifest(descriptor: Descriptor, manifest: Manifest, origin: Repository): void;

  /** The manifest that named this digest last: whoever holds that one most likely holds this one. */
  parentOf(digest: Digest): Digest | undefined;

  rememberTag(entry: TagEntry): void;
  tag(repository: Repository, tag: string): TagEntry | undefined;
  tagsOf(repository: Repository): string[];
  /**
   * When (milliseconds since the epoch) upstream last said that it gives this repository to anonymous clients;
   * `undefined` takes it back.
   */
  rememberPublic(repository: Repository, at: number | undefined): void;
  publicSince(repository: Repository): number | undefined;

  /** Everything with a tag, newest first (the `ls` command). */
  images(): TagEntry[];

  /** Manifests of the repository whose `subject` is the digest (OCI distribution 1.1, "Listing Referrers"). */
  referrersOf(
    repository: Repository,
    subject: Digest,
  ): (Descriptor & {
    artifactType?: string | undefined;
    annotations?: Readonly<Record<string, string>> | undefined;
  })[];
}
