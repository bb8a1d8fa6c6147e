import { linkSignal, type Digest, type Logger, type Service } from "@p2p-mirror/shared";
import type { ContentEvent, ContentStore } from "../store/content-store.ts";
import type { RoutingMetrics } from "./metrics.ts";
import type { Router } from "./router.ts";

export interface AdvertiserOptions {
  /** Events within this time are said together. Default 100 ms: a blob is findable well within 2 s of its completion. */
  readonly batchMs?: number;
  /** How often all stores are listed again, for what no event told. Default 10 min. */
  readonly reconcileMs?: number;
}

export interface AdvertiserDeps {
  readonly stores: readonly ContentStore[];
  readonly router: Pick<Router, "advertise" | "withdraw">;
  readonly logger: Logger;
  readonly metrics: RoutingMetrics;
}

const DEFAULTS = { batchMs: 100, reconcileMs: 10 * 60_000 };
/** A store that cannot be listed now (containerd restarts) is listed again after this. */
const RETRY_MS = 5_000;
/** Blobs said in one go; the walk of a large store must not wait for its end. */
const BATCH = 512;
const PARALLEL_STATS = 16;

/**
 * Tells the cluster which blobs this node holds completely: all of them at the start, then what the stores report, and
 * now and then all of them again. Another node acts on what is said here, so a blob is looked at before it is said: one
 * that is not there costs a peer a 404. Records are taken back when no store has the blob any more.
 */
export function createAdvertiser(deps: AdvertiserDeps, options: AdvertiserOptions = {}): Service {
  return new Advertiser(deps, { ...DEFAULTS, ...options });
}

class Advertiser implements Service {
  readonly name = "advertiser";
  readonly #deps: AdvertiserDeps;
  readonly #options: Required<AdvertiserOptions>;
  readonly #closing = new AbortController();
  /** What was said and not taken back. */
  readonly #said = new Set<Digest>();
  /** Blobs something happened to since they were last looked at. */
  #changed = new Set<Digest>();
  #unwatch: (() => void)[] = [];
  #batch: NodeJS.Timeout | undefined;
  #reconcile: NodeJS.Timeout | undefined;
  /** One thing after another: looking and saying must not be overtaken by a later change. */
  #queue: Promise<void> = Promise.resolve();

  constructor(deps: AdvertiserDeps, options: Required<AdvertiserOptions>) {
    this.#deps = deps;
    this.#options = options;
  }

  /** The walk goes on after this resolves: a node is Ready before it has said a hundred thousand blobs. */
  start(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    this.#unwatch = this.#deps.stores.map((store) => store.watch((event) => this.#onEvent(event)));
    this.#reconcileNow();
    return Promise.resolve();
  }

  /** Takes everything back, within two seconds; when the node leaves, its router does not wait for more. */
  async close(): Promise<void> {
    this.#closing.abort();
    for (const unwatch of this.#unwatch.splice(0)) unwatch();
    clearTimeout(this.#batch);
    clearTimeout(this.#reconcile);
    await this.#queue;
    await this.#withdraw([...this.#said]);
  }

  #onEvent(event: ContentEvent): void {
    switch (event.kind) {
      case "added":
        this.#change(event.blob.digest);
        break;
      case "removed":
        this.#change(event.digest);
        break;
      case "reset":
        this.#reconcileNow();
        break;
    }
  }

  #change(digest: Digest): void {
    this.#changed.add(digest);
    if (this.#batch !== undefined || this.#closing.signal.aborted) return;
    this.#batch = setTimeout(() => {
      this.#batch = undefined;
      const changed = [...this.#changed];
      this.#changed = new Set();
      this.#enqueue(() => this.#look(changed));
    }, this.#options.batchMs);
  }

  #reconcileNow(): void {
    if (this.#closing.signal.aborted) return;
    clearTimeout(this.#reconcile);
    this.#reconcile = undefined;
    this.#enqueue(async () => {
      const whole = await this.#walk();
      if (this.#closing.signal.aborted || this.#reconcile !== undefined) return;
      this.#reconcile = setTimeout(
        () => this.#reconcileNow(),
        whole
          ? this.#options.reconcileMs * (0.9 + 0.2 * Math.random())
          : Math.min(RETRY_MS, this.#options.reconcileMs),
      );
    });
  }

  #enqueue(work: () => Promise<void>): void {
    this.#queue = this.#queue.then(work).catch((error: unknown) => {
      if (!this.#closing.signal.aborted)
        this.#deps.logger.warn({ err: error }, "blobs could not be advertised");
    });
  }

  /** Lists all stores; says what is new, and looks again at what was said and is not listed. False when one failed. */
  async #walk(): Promise<boolean> {
    const listed = new Set<Digest>();
    let whole = true;
    for (const store of this.#deps.stores) {
      let batch: Digest[] = [];
      try {
        for await (const { digest } of store.list({ signal: this.#closing.signal })) {
          listed.add(digest);
          if (!this.#said.has(digest)) batch.push(digest);
          if (batch.length < BATCH) continue;
          await this.#advertise(batch);
          batch = [];
        }
      } catch (error) {
        if (this.#closing.signal.aborted) return false;
        whole = false;
        this.#deps.logger.warn({ err: error, store: store.name }, "a store could not be listed");
      }
      await this.#advertise(batch);
    }
    // Looked at one by one: a list may be older than an event that came meanwhile, or end early.
    await this.#look([...this.#said].filter((digest) => !listed.has(digest)));
    return whole;
  }

  async #look(digests: readonly Digest[]): Promise<void> {
    const held: Digest[] = [];
    const gone: Digest[] = [];
    const work = [...digests];
    const worker = async (): Promise<void> => {
      for (let digest = work.pop(); digest !== undefined; digest = work.pop()) {
        if (this.#closing.signal.aborted) return;
        ((await this.#isHeld(digest)) ? held : gone).push(digest);
      }
    };
    await Promise.all(Array.from({ length: Math.min(PARALLEL_STATS, work.length) }, worker));
    if (this.#closing.signal.aborted) return;
    await this.#withdraw(gone.filter((digest) => this.#said.has(digest)));
    await this.#advertise(held);
  }

  async #isHeld(digest: Digest): Promise<boolean> {
    for (const store of this.#deps.stores) {
      try {
        if ((await store.stat(digest, { signal: this.#closing.signal })) !== undefined) return true;
      } catch (error) {
        this.#deps.logger.debug({ err: error, store: store.name, digest }, "a blob could not be looked at");
      }
    }
    return false;
  }

  async #advertise(digests: readonly Digest[]): Promise<void> {
    if (digests.length === 0 || this.#closing.signal.aborted) return;
    for (const digest of digests) this.#said.add(digest);
    this.#deps.metrics.blobsAdvertised.set(this.#said.size);
    await this.#deps.router.advertise(digests, { signal: this.#closing.signal });
  }

  async #withdraw(digests: readonly Digest[]): Promise<void> {
    if (digests.length === 0) return;
    for (const digest of digests) this.#said.delete(digest);
    this.#deps.metrics.blobsAdvertised.set(this.#said.size);
    const deadline = linkSignal([], 2_000);
    try {
      await this.#deps.router.withdraw(digests, { signal: deadline.signal });
    } finally {
      deadline.release();
    }
  }
}
