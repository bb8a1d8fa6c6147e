import { setTimeout as delay } from "node:timers/promises";
import type { Digest, Logger } from "@p2p-mirror/shared";
import type { BlobIndex } from "./blob-index.ts";

export interface ScrubOptions {
  /** Bytes hashed per second at most, default 8 MiB: 20 GiB in three quarters of an hour, below half a percent of a core. */
  readonly bytesPerSecond?: number | undefined;
  /** Milliseconds after which a verified blob is hashed again, default seven days. */
  readonly intervalMs?: number | undefined;
}

export interface ScrubberDeps {
  readonly index: BlobIndex;
  readonly now: () => number;
  readonly logger: Logger;
  readonly onBytes: (bytes: number) => void;
  /** Hashes one blob and removes it when it is wrong; false when it is not there (any more). */
  readonly verify: (
    digest: Digest,
    options: { signal: AbortSignal; pace: (bytes: number) => Promise<void> },
  ) => Promise<boolean>;
}

const DAY_MS = 24 * 60 * 60 * 1000;
/** How often an idle scrub looks for blobs that are due. */
const LOOK_MS = 60_000;
/** After an I/O error that says nothing of a blob. */
const PAUSE_MS = 60_000;

/** Finds what rots on the disk before somebody needs it: hashes the blobs whose last verification is longest ago. */
export class Scrubber {
  readonly #bytesPerSecond: number;
  readonly #intervalMs: number;
  readonly #deps: ScrubberDeps;
  readonly #abort = new AbortController();
  #running: Promise<void> | undefined;

  constructor(options: ScrubOptions, deps: ScrubberDeps) {
    this.#bytesPerSecond = options.bytesPerSecond ?? 8 * 1024 * 1024;
    this.#intervalMs = options.intervalMs ?? 7 * DAY_MS;
    this.#deps = deps;
  }

  start(): void {
    this.#running ??= this.#run().catch((error: unknown) => {
      if (!this.#abort.signal.aborted)
        this.#deps.logger.error({ err: error }, "the scrub of the cache ended");
    });
  }

  async close(): Promise<void> {
    this.#abort.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#abort;
    while (!signal.aborted) {
      const due = this.#due();
      if (due === undefined) {
        await delay(LOOK_MS, undefined, { signal });
        continue;
      }
      try {
        await this.#deps.verify(due, { signal, pace: (bytes) => this.#pace(bytes) });
      } catch (error) {
        if (signal.aborted) return;
        this.#deps.logger.warn({ digest: due, err: error }, "a blob could not be scrubbed");
        await delay(PAUSE_MS, undefined, { signal });
      }
    }
  }

  #due(): Digest | undefined {
    const before = this.#deps.now() - this.#intervalMs;
    let oldest: { digest: Digest; verifiedAt: number } | undefined;
    for (const entry of this.#deps.index.entries()) {
      if (entry.verifiedAt > before) continue;
      if (oldest === undefined || entry.verifiedAt < oldest.verifiedAt) oldest = entry;
    }
    return oldest?.digest;
  }

  #pace(bytes: number): Promise<void> {
    this.#deps.onBytes(bytes);
    return delay((bytes * 1000) / this.#bytesPerSecond, undefined, { signal: this.#abort.signal });
  }
}
