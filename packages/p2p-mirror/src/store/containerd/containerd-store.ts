import type { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import {
  IntegrityError,
  InvalidInputError,
  MAX_MANIFEST_BYTES,
  parseRepository,
  SourceError,
  type ByteRange,
  type Descriptor,
  type Digest,
  type Logger,
  type Repository,
  type Service,
} from "@p2p-mirror/shared";
import type { ContainerdClient, ContentInfo } from "@p2p-mirror/shared/grpc";
import type { ContentEvent, ContentStore, StoredBlob, StoreOptions } from "../content-store.ts";
import { VerifiedFiles } from "../verified-file.ts";
import { ContainerdConnection } from "./connection.ts";
import { ContainerdFollower } from "./containerd-follower.ts";
import { DEFAULT_CONTENT_ROOT, findContentDir, type ContentDir } from "./content-dir.ts";
import { GrpcReader } from "./grpc-reader.ts";
import { KnownBlobs, type KnownBlob } from "./known-blobs.ts";
import type { ContainerdMetrics } from "./metrics.ts";

export interface ContainerdStoreOptions {
  /** Path of containerd's unix socket. */
  readonly socket: string;
  /** Only content of this namespace is seen; Kubernetes uses `k8s.io`. */
  readonly namespace: string;
  /**
   * containerd's content directory (`io.containerd.content.v1.content`) as this process sees it; default: where containerd
   * says it is, then containerd's own default. `none`: never read files.
   */
  readonly contentDir?: string | undefined;
  /** Milliseconds containerd may take for one answer, default 3,000. After that it counts as away. */
  readonly timeoutMs?: number | undefined;
  /** Milliseconds the next message of a stream may take, default 10,000. */
  readonly stallMs?: number | undefined;
  /** Milliseconds between complete comparisons with containerd's list, default 60,000. */
  readonly reconcileIntervalMs?: number | undefined;
  /** Milliseconds of quiet after an event before comparing, default 2,000 (garbage collection takes up to 1.5 s). */
  readonly settleMs?: number | undefined;
  /** Milliseconds between attempts to connect, default 100 doubling up to 5,000. */
  readonly backoffMs?: { readonly first: number; readonly most: number } | undefined;
}

export interface ContainerdStoreDeps {
  readonly logger: Logger;
  readonly metrics: ContainerdMetrics;
  /** It was away, and is connected again. */
  readonly onReturn?: (() => void) | undefined;
}

/** containerd's content store, read only. While containerd is away, what was known is served from files if they are seen. */
export interface ContainerdStore extends ContentStore, Service {
  readonly name: "containerd";
  /** Whether containerd answers now. */
  readonly connected: boolean;
  /**
   * Where containerd got the blob from: its labels `containerd.io/distribution.source.<registry>`, which carry the
   * registry of the image's name, never a mirror's - but its host alone: containerd leaves the port out, so that
   * `host:5000` comes out as `host`, and registries on two ports of a host cannot be told apart. Empty when containerd
   * does not say, or is away.
   */
  originsOf(digest: Digest, options?: StoreOptions): Promise<Repository[]>;
}

const ORIGIN_LABEL = "containerd.io/distribution.source.";

export function createContainerdStore(
  options: ContainerdStoreOptions,
  deps: ContainerdStoreDeps,
): ContainerdStore {
  return new Store(options, deps);
}

class Store implements ContainerdStore {
  readonly name = "containerd";
  readonly #options: ContainerdStoreOptions;
  readonly #deps: ContainerdStoreDeps;
  readonly #known: KnownBlobs;
  readonly #files: VerifiedFiles;
  readonly #stream: GrpcReader;
  readonly #connection: ContainerdConnection;
  readonly #follower: ContainerdFollower;
  #dir: ContentDir | undefined;
  #wasConnected = false;

  constructor(options: ContainerdStoreOptions, deps: ContainerdStoreDeps) {
    this.#options = options;
    this.#deps = deps;
    const stallMs = options.stallMs ?? 10_000;
    const settleMs = options.settleMs ?? 2_000;
    this.#known = new KnownBlobs((digest) => this.#forget(digest));
    this.#known.watch(() => deps.metrics.blobs.set(this.#known.size));
    this.#files = new VerifiedFiles({
      source: "containerd",
      onCorrupt: ({ digest }) => this.#condemn(digest),
    });
    this.#stream = new GrpcReader({ stallMs, onCorrupt: (digest) => this.#condemn(digest) });
    this.#connection = new ContainerdConnection(
      {
        socket: options.socket,
        namespace: options.namespace,
        timeoutMs: options.timeoutMs ?? 3_000,
        backoffMs: options.backoffMs ?? { first: 100, most: 5_000 },
      },
      {
        ...deps,
        onConnected: (client, signal) => this.#onConnected(client, signal),
        onEvent: (event) => this.#follower.onEvent(event),
      },
    );
    this.#follower = new ContainerdFollower(
      {
        reconcileIntervalMs: options.reconcileIntervalMs ?? 60_000,
        afterEvents: { quietMs: settleMs, mostMs: settleMs * 5 },
        stallMs,
      },
      {
        ...deps,
        known: this.#known,
        client: () => this.#connection.client,
        suspect: (client, error) => this.#connection.suspect(client, error),
        isHeld: async (digest) => (this.#known.get(digest) ?? (await this.#ask(digest))) !== undefined,
        readManifest: (descriptor) => this.#readManifest(descriptor),
      },
    );
  }

  get connected(): boolean {
    return this.#connection.client !== undefined;
  }

  /** Resolves when containerd is connected, or was found to be away: that is no error. */
  async start(signal: AbortSignal): Promise<void> {
    this.#follower.start();
    await this.#connection.start(signal);
  }

  async close(): Promise<void> {
    await this.#follower.close();
    await this.#connection.close();
    await this.#files.close();
  }

  async stat(digest: Digest, options: StoreOptions = {}): Promise<StoredBlob | undefined> {
    const blob = await this.#find(digest, options.signal);
    return blob === undefined ? undefined : { digest, size: blob.size };
  }

  async read(digest: Digest, range: ByteRange, options: StoreOptions = {}): Promise<Readable | undefined> {
    const blob = this.#known.get(digest) ?? (await this.#ask(digest, options.signal));
    if (blob === undefined) return undefined;
    if (range.start < 0 || range.end > blob.size || range.start > range.end) {
      throw new InvalidInputError("RANGE_INVALID", "range", `${range.start}-${range.end}/${blob.size}`);
    }
    try {
      return (await this.#readFile(blob, range, options)) ?? (await this.#readStream(blob, range, options));
    } catch (error) {
      // Found wrong before there is a stream, and condemned: from now on it is not held.
      if (error instanceof IntegrityError) return undefined;
      throw error;
    }
  }

  async *list(options: StoreOptions = {}): AsyncIterable<StoredBlob> {
    options.signal?.throwIfAborted();
    await this.#follower.reconcile().catch((error: unknown) => {
      this.#deps.logger.debug({ err: error }, "containerd did not list its content");
    });
    for (const blob of this.#known.all()) {
      options.signal?.throwIfAborted();
      const held = this.#connection.client !== undefined || (await this.#dir?.holds(blob)) === true;
      if (held) yield { digest: blob.digest, size: blob.size };
    }
  }

  watch(listener: (event: ContentEvent) => void): () => void {
    return this.#known.watch(listener);
  }

  async originsOf(digest: Digest, options: StoreOptions = {}): Promise<Repository[]> {
    const info = await this.#info(digest, options.signal);
    const origins: Repository[] = [];
    for (const [label, repositories] of info?.labels ?? []) {
      if (!label.startsWith(ORIGIN_LABEL)) continue;
      for (const repository of repositories.split(",")) {
        try {
          origins.push(parseRepository(label.slice(ORIGIN_LABEL.length), repository));
        } catch {
          // Anybody with access to containerd may write labels; what is no repository is no origin.
        }
      }
    }
    return origins;
  }

  async #onConnected(client: ContainerdClient, signal: AbortSignal): Promise<void> {
    await this.#follower.catchUp();
    this.#dir = await this.#findDir(client, signal);
    this.#follower.announce();
    const way = this.#dir === undefined ? "over gRPC" : "as files";
    this.#deps.logger.info(
      { blobs: this.#known.size, dir: this.#dir?.root },
      `containerd's content is read ${way}`,
    );
    if (this.#wasConnected) this.#deps.onReturn?.();
    this.#wasConnected = true;
  }

  async #findDir(client: ContainerdClient, signal: AbortSignal): Promise<ContentDir | undefined> {
    const { contentDir } = this.#options;
    if (contentDir === "none") return undefined;
    if (contentDir !== undefined) return findContentDir([contentDir], this.#known.all());
    const told = await client.contentRoot({ signal });
    return findContentDir([told, DEFAULT_CONTENT_ROOT], this.#known.all());
  }

  /** A known blob whose file is seen needs no question: this is what each request does first. */
  async #find(digest: Digest, signal: AbortSignal | undefined): Promise<KnownBlob | undefined> {
    signal?.throwIfAborted();
    const known = this.#known.get(digest);
    if (known !== undefined && (await this.#dir?.holds(known)) === true) return known;
    return this.#ask(digest, signal);
  }

  async #ask(digest: Digest, signal?: AbortSignal): Promise<KnownBlob | undefined> {
    const client = this.#connection.client;
    const info = await this.#info(digest, signal);
    if (info === undefined) {
      // Away is not gone: what is known is then still good for reading from files.
      if (client !== undefined && client === this.#connection.client) this.#known.remove(digest);
      return undefined;
    }
    const blob = { digest, size: info.size, createdAt: info.createdAt };
    return this.#known.add(blob) ? blob : undefined;
  }

  async #info(digest: Digest, signal: AbortSignal | undefined): Promise<ContentInfo | undefined> {
    const client = this.#connection.client;
    try {
      return await client?.content.info(digest, { signal });
    } catch (error) {
      signal?.throwIfAborted();
      if (client !== undefined) this.#connection.suspect(client, error);
      return undefined;
    }
  }

  async #readFile(blob: KnownBlob, range: ByteRange, options: StoreOptions): Promise<Readable | undefined> {
    const dir = this.#dir;
    if (dir === undefined || !(await dir.holds(blob))) return undefined;
    try {
      const body = await this.#files.read({ ...blob, path: dir.pathOf(blob.digest) }, range, options);
      if (body !== undefined) this.#deps.metrics.reads.inc({ way: "file" });
      return body;
    } catch (error) {
      // Seen but not to be opened (a security module, no descriptors left): containerd can still stream it.
      if (!(error instanceof Error && "syscall" in error)) throw error;
      this.#deps.logger.warn({ err: error }, "a file of containerd's content directory cannot be read");
      return undefined;
    }
  }

  async #readStream(blob: KnownBlob, range: ByteRange, options: StoreOptions): Promise<Readable | undefined> {
    const client = this.#connection.client;
    if (client === undefined) return undefined;
    // An empty range asks nothing of containerd, so that it has to be asked whether it holds the blob.
    if (range.start === range.end && (await this.#ask(blob.digest, options.signal)) === undefined)
      return undefined;
    try {
      const body = await this.#stream.read(client.content, blob, range, options);
      if (body === undefined) this.#known.remove(blob.digest);
      else this.#deps.metrics.reads.inc({ way: "grpc" });
      return body;
    } catch (error) {
      this.#connection.suspect(client, error);
      if (error instanceof SourceError && error.code === "UNREACHABLE") return undefined;
      throw error;
    }
  }

  /** Undefined also when it is corrupt, or containerd went away meanwhile: no reason to give up other images. */
  async #readManifest(descriptor: Descriptor): Promise<Uint8Array | undefined> {
    const size = this.#known.get(descriptor.digest)?.size;
    if (size === undefined || size > MAX_MANIFEST_BYTES) return undefined;
    try {
      const body = await this.read(descriptor.digest, { start: 0, end: size });
      return body === undefined ? undefined : await buffer(body);
    } catch {
      return undefined;
    }
  }

  #condemn(digest: Digest): void {
    if (!this.#known.condemn(digest)) return;
    this.#deps.metrics.corrupt.inc();
    this.#deps.logger.error(
      { digest },
      "containerd's copy of this blob does not match its digest: not served; remove the image and pull it again",
    );
  }

  #forget(digest: Digest): void {
    this.#files.forget(digest);
    this.#stream.forget(digest);
  }
}
