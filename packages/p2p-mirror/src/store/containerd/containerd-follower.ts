import {
  Debounced,
  type DebouncedOptions,
  type Descriptor,
  type Digest,
  type Logger,
} from "@p2p-mirror/shared";
import type { ContainerdClient, ContainerdEvent } from "@p2p-mirror/shared/grpc";
import { walkImage } from "./image-walk.ts";
import type { KnownBlobs } from "./known-blobs.ts";
import type { ContainerdMetrics } from "./metrics.ts";
import { Rerun } from "./rerun.ts";

export interface FollowerOptions {
  /** Milliseconds between complete comparisons when nothing happens. */
  readonly reconcileIntervalMs: number;
  /** When to compare after events that say that content may be about to go. */
  readonly afterEvents: DebouncedOptions;
  /** Milliseconds the next page of the list may take. */
  readonly stallMs: number;
}

export interface FollowerDeps {
  readonly logger: Logger;
  readonly metrics: ContainerdMetrics;
  readonly known: KnownBlobs;
  /** The connection as it is now. */
  client(): ContainerdClient | undefined;
  suspect(client: ContainerdClient, error: unknown): void;
  /** Asks containerd unless the blob is known already, and makes it known. */
  isHeld(digest: Digest): Promise<boolean>;
  readManifest(descriptor: Descriptor): Promise<Uint8Array | undefined>;
}

/**
 * Keeps `KnownBlobs` current. containerd says what comes (2.1: each blob; before: each image, whose content is then
 * walked), but nothing of what its garbage collection takes: that is found by comparing, soon after images or snapshots
 * were removed, and now and then anyway.
 */
export class ContainerdFollower {
  readonly #options: FollowerOptions;
  readonly #deps: FollowerDeps;
  readonly #closing = new AbortController();
  readonly #reconcile: Rerun;
  readonly #walk: Rerun;
  readonly #soon: Debounced;
  readonly #images = new Set<string>();
  #silent = false;
  #interval: NodeJS.Timeout | undefined;

  constructor(options: FollowerOptions, deps: FollowerDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#reconcile = new Rerun(() => this.#compare());
    this.#walk = new Rerun(() => this.#walkImages());
    this.#soon = new Debounced(options.afterEvents, () => this.#inBackground(this.#reconcile));
  }

  start(): void {
    this.#interval = setInterval(
      () => this.#inBackground(this.#reconcile),
      this.#options.reconcileIntervalMs,
    );
  }

  /** A new connection: nobody knows what happened in between. Compares without telling; `announce` comes next. */
  async catchUp(): Promise<void> {
    this.#silent = true;
    try {
      await this.#reconcile.run();
    } finally {
      this.#silent = false;
    }
  }

  /** Tells everybody to list again, now that it can be served. */
  announce(): void {
    if (this.#closing.signal.aborted) return;
    this.#deps.known.reset();
    // What happened between the comparison and the moment the event subscription really stood.
    this.#soon.request();
  }

  /** Compares with containerd's list now. Rejects with SourceError when it cannot. */
  reconcile(): Promise<void> {
    return this.#reconcile.run();
  }

  onEvent(event: ContainerdEvent): void {
    if (this.#closing.signal.aborted) return;
    const { known } = this.#deps;
    switch (event.kind) {
      case "content-created":
        known.add({ digest: event.digest, size: event.size, createdAt: undefined });
        break;
      case "content-deleted":
        known.remove(event.digest);
        break;
      case "image-changed":
        this.#images.add(event.name);
        this.#inBackground(this.#walk);
        // With discard_unpacked_layers the layers go right after the image came.
        this.#soon.request();
        break;
      case "image-deleted":
      case "snapshot-removed":
        this.#soon.request();
        break;
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#interval);
    this.#soon.close();
    this.#images.clear();
    this.#closing.abort();
    await Promise.all([this.#reconcile.idle(), this.#walk.idle()]);
  }

  async #compare(): Promise<void> {
    const client = this.#deps.client();
    if (client === undefined || this.#closing.signal.aborted) return;
    const { known, metrics } = this.#deps;
    try {
      const list = client.content.list({ signal: this.#closing.signal, stallMs: this.#options.stallMs });
      await known.reconcile(list, this.#silent);
    } catch (error) {
      this.#deps.suspect(client, error);
      throw error;
    }
    metrics.reconciles.inc();
  }

  async #walkImages(): Promise<void> {
    const targets = new Map<Digest, Descriptor>();
    const client = this.#deps.client();
    const names = [...this.#images];
    this.#images.clear();
    if (client === undefined) return;
    for (const name of names) {
      const image = await client.images.get(name, { signal: this.#closing.signal });
      if (image !== undefined) targets.set(image.target.digest, image.target);
    }
    for (const target of targets.values()) {
      if (this.#closing.signal.aborted) return;
      await walkImage(target, this.#deps);
    }
  }

  #inBackground(job: Rerun): void {
    if (this.#closing.signal.aborted) return;
    job.run().catch((error: unknown) => {
      if (this.#closing.signal.aborted) return;
      this.#deps.logger.debug(
        { err: error },
        "looking through containerd's content failed; it is done again later",
      );
    });
  }
}
