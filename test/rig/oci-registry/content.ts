import { digestOf, parseManifest, type Digest } from "@p2p-mirror/shared";

export interface StoredManifest {
  readonly digest: Digest;
  readonly mediaType: string;
  readonly bytes: Uint8Array;
}

/** What `push` takes: blobs first, then manifests (children before the index that names them), each with its tags. */
export interface PushedContent {
  readonly repository: string;
  readonly blobs: readonly Uint8Array[];
  readonly manifests: readonly {
    readonly mediaType: string;
    readonly bytes: Uint8Array;
    readonly tags?: readonly string[];
  }[];
}

interface RepositoryContent {
  readonly manifests: Map<Digest, StoredManifest>;
  readonly tags: Map<string, Digest>;
  readonly blobs: Set<Digest>;
}

/** Everything the registry holds, in memory. Blob bytes are kept once, whatever the number of repositories. */
export class RegistryContent {
  readonly #repositories = new Map<string, RepositoryContent>();
  readonly #blobs = new Map<Digest, Uint8Array>();

  push(content: PushedContent): void {
    for (const blob of content.blobs) this.putBlob(content.repository, blob);
    for (const manifest of content.manifests) {
      const digest = this.putManifest(content.repository, manifest.mediaType, manifest.bytes);
      for (const tag of manifest.tags ?? []) this.tag(content.repository, tag, digest);
    }
  }

  putBlob(repository: string, bytes: Uint8Array, digest: Digest = digestOf(bytes)): Digest {
    this.#blobs.set(digest, bytes);
    this.#repository(repository).blobs.add(digest);
    return digest;
  }

  putManifest(repository: string, mediaType: string, bytes: Uint8Array): Digest {
    const digest = digestOf(bytes);
    this.#repository(repository).manifests.set(digest, { digest, mediaType, bytes });
    return digest;
  }

  tag(repository: string, tag: string, digest: Digest): void {
    this.#repository(repository).tags.set(tag, digest);
  }

  /** True when the blob is known under `from`, and now under `repository` too (cross-repository mount). */
  mount(repository: string, from: string, digest: Digest): boolean {
    if (this.#repositories.get(from)?.blobs.has(digest) !== true) return false;
    this.#repository(repository).blobs.add(digest);
    return true;
  }

  has(repository: string): boolean {
    return this.#repositories.has(repository);
  }

  manifest(repository: string, reference: string): StoredManifest | undefined {
    const known = this.#repositories.get(repository);
    for (const [digest, manifest] of known?.manifests ?? []) if (digest === reference) return manifest;
    const tagged = known?.tags.get(reference);
    return tagged === undefined ? undefined : known?.manifests.get(tagged);
  }

  blob(repository: string, digest: string): Uint8Array | undefined {
    for (const known of this.#repositories.get(repository)?.blobs ?? []) {
      if (known === digest) return this.#blobs.get(known);
    }
    return undefined;
  }

  /** By digest alone: what the storage behind a redirect sees. */
  anyBlob(digest: string): Uint8Array | undefined {
    for (const [known, bytes] of this.#blobs) if (known === digest) return bytes;
    return undefined;
  }

  /** In lexical order, as the distribution spec wants tag lists. */
  tags(repository: string): string[] {
    return [...(this.#repositories.get(repository)?.tags.keys() ?? [])].toSorted();
  }

  referrers(repository: string, subject: string, artifactType: string | undefined): object[] {
    const found: object[] = [];
    for (const { digest, mediaType, bytes } of this.#repositories.get(repository)?.manifests.values() ?? []) {
      const manifest = parseManifest(bytes);
      if (manifest.subject?.digest !== subject) continue;
      const type = manifest.artifactType ?? manifest.blobs[0]?.mediaType;
      if (artifactType !== undefined && type !== artifactType) continue;
      found.push({
        mediaType,
        digest,
        size: bytes.byteLength,
        artifactType: type,
        annotations: manifest.annotations,
      });
    }
    return found;
  }

  /** Removes a tag, a manifest (with the tags on it) or a blob from a repository. */
  remove(repository: string, reference: string): boolean {
    const known = this.#repositories.get(repository);
    if (known === undefined) return false;
    if (known.tags.delete(reference)) return true;
    for (const [tag, digest] of known.tags) if (digest === reference) known.tags.delete(tag);
    for (const digest of known.manifests.keys())
      if (digest === reference) return known.manifests.delete(digest);
    for (const digest of known.blobs) if (digest === reference) return known.blobs.delete(digest);
    return false;
  }

  #repository(name: string): RepositoryContent {
    let known = this.#repositories.get(name);
    if (known === undefined) {
      known = { manifests: new Map(), tags: new Map(), blobs: new Set() };
      this.#repositories.set(name, known);
    }
    return known;
  }
}
