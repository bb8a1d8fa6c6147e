import { randomBytes } from "node:crypto";
import { Readable } from "node:stream";
import {
  digestOf,
  MEDIA_TYPES,
  NotFoundError,
  parseManifest,
  type ByteRange,
  type Digest,
  type Repository,
} from "@p2p-mirror/shared";
import type { Access, AccessDecision, AccessRequest } from "../../../src/transfer/access.ts";
import type {
  BlobContent,
  Content,
  ContentOptions,
  ManifestContent,
  ResolvedTag,
  SourceKind,
} from "../../../src/transfer/content.ts";
import type { UpstreamList } from "../../../src/upstream/upstream.ts";

const CHUNK = 64 * 1024;

type Open = (range: ByteRange, options: ContentOptions) => Promise<Readable>;

/** Bytes in chunks of 64 KiB, with backpressure; `before` runs before each and may wait or throw. */
export function chunked(
  bytes: Buffer,
  range: ByteRange,
  before?: (offset: number) => void | Promise<void>,
): Readable {
  async function* chunks(): AsyncGenerator<Buffer> {
    for (let at = range.start; at < range.end; at += CHUNK) {
      await before?.(at);
      yield bytes.subarray(at, Math.min(range.end, at + CHUNK));
    }
  }
  return Readable.from(chunks(), { objectMode: false, highWaterMark: CHUNK });
}

/** The content facade with a script: real bytes and digests, and faults where a test wants them. */
export class ScriptedContent implements Content {
  readonly blobs = new Map<Digest, { bytes: Buffer; source: SourceKind; open: Open }>();
  readonly manifests = new Map<Digest, ManifestContent>();
  readonly tagged = new Map<string, ResolvedTag>();
  readonly lists = new Map<string, UpstreamList>();
  /** What was asked, in order: `blob reg/repo@sha256:…`. */
  readonly asked: string[] = [];
  /** Queries of list requests. */
  readonly queries: unknown[] = [];
  /** Runs first in every method; throw or wait here. */
  before: (options: ContentOptions) => void | Promise<void> = () => undefined;

  addBlob(bytes: Buffer = randomBytes(300_000), source: SourceKind = "cache", open?: Open): Digest {
    const digest = digestOf(bytes);
    this.blobs.set(digest, {
      bytes,
      source,
      open: open ?? (async (range) => chunked(bytes, range)),
    });
    return digest;
  }

  addManifest(manifest: object, tag?: string, source: SourceKind = "peer"): Digest {
    const bytes = Buffer.from(JSON.stringify(manifest));
    const digest = digestOf(bytes);
    const { mediaType } = parseManifest(bytes);
    const descriptor = { digest, size: bytes.byteLength, mediaType };
    this.manifests.set(digest, { descriptor, bytes, source });
    if (tag !== undefined) this.tagged.set(tag, { descriptor, stale: false });
    return digest;
  }

  async #ask(what: string, options: ContentOptions): Promise<void> {
    this.asked.push(what);
    options.signal.throwIfAborted();
    await this.before(options);
  }

  async resolveTag(repository: Repository, tag: string, options: ContentOptions): Promise<ResolvedTag> {
    await this.#ask(`tag ${nameOf(repository)}:${tag}`, options);
    return found(this.tagged.get(tag), "MANIFEST_UNKNOWN", tag);
  }

  async manifest(repository: Repository, digest: Digest, options: ContentOptions): Promise<ManifestContent> {
    await this.#ask(`manifest ${nameOf(repository)}@${digest}`, options);
    return found(this.manifests.get(digest), "MANIFEST_UNKNOWN", digest);
  }

  async blob(repository: Repository, digest: Digest, options: ContentOptions): Promise<BlobContent> {
    await this.#ask(`blob ${nameOf(repository)}@${digest}`, options);
    const { bytes, source, open } = found(this.blobs.get(digest), "BLOB_UNKNOWN", digest);
    return { size: bytes.byteLength, source, open };
  }

  async blobSize(
    repository: Repository,
    digest: Digest,
    options: ContentOptions,
  ): Promise<{ size: number; source: SourceKind }> {
    await this.#ask(`size ${nameOf(repository)}@${digest}`, options);
    const { bytes, source } = found(this.blobs.get(digest), "BLOB_UNKNOWN", digest);
    return { size: bytes.byteLength, source };
  }

  async tags(repository: Repository, query: object, options: ContentOptions): Promise<UpstreamList> {
    await this.#ask(`tags ${nameOf(repository)}`, options);
    this.queries.push(query);
    return found(this.lists.get("tags"), "NAME_UNKNOWN", nameOf(repository));
  }

  async referrers(
    repository: Repository,
    digest: Digest,
    query: object,
    options: ContentOptions,
  ): Promise<UpstreamList> {
    await this.#ask(`referrers ${nameOf(repository)}@${digest}`, options);
    this.queries.push(query);
    return found(this.lists.get("referrers"), "MANIFEST_UNKNOWN", digest);
  }
}

const nameOf = ({ registry, repository }: Repository): string => `${registry}/${repository}`;

function found<T>(value: T | undefined, code: NotFoundError["code"], what: string): T {
  if (value === undefined) throw new NotFoundError(code, what);
  return value;
}

/** A small image manifest with the true digest of a config. */
export const imageManifest = (note = "a"): object => ({
  schemaVersion: 2,
  mediaType: MEDIA_TYPES.ociManifest,
  config: {
    mediaType: "application/vnd.oci.image.config.v1+json",
    digest: digestOf(Buffer.from("{}")),
    size: 2,
  },
  layers: [],
  annotations: { note },
});

/** Access with a fixed answer, which remembers what it was asked. */
export class ScriptedAccess implements Access {
  readonly requests: AccessRequest[] = [];
  answer: () => Promise<AccessDecision> | AccessDecision = () => "allow";

  async decide(request: AccessRequest): Promise<AccessDecision> {
    this.requests.push(request);
    return this.answer();
  }
}
