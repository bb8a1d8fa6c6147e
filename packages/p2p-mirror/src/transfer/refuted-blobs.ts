import type { Clock, Descriptor } from "@p2p-mirror/shared";
import type { Spool } from "./spool.ts";

/** A pull that failed is tried again by kubelet within seconds, the first time. */
const KEPT_MS = 60_000;
/** An image has as many layers under way, or more; each may be large. */
const MAX_KEPT = 8;

/** What is left of a flight that ended in a wrong blob: all bytes, of which some are wrong, and what each piece hashes to. */
export interface RefutedBlob {
  readonly spool: Spool;
  readonly hashes: ReadonlyMap<number, Buffer>;
}

const keyOf = ({ digest, size }: Pick<Descriptor, "digest" | "size">): string => `${digest} ${size}`;

/** Wrong blobs for the next try, which needs other bytes for the wrong pieces only. */
export class RefutedBlobs {
  readonly #kept = new Map<string, { readonly blob: RefutedBlob; readonly cancel: () => void }>();
  readonly #clock: Clock;
  readonly #failed: (error: unknown) => void;

  /** `failed`: a spool could not be released. */
  constructor(clock: Clock, failed: (error: unknown) => void) {
    this.#clock = clock;
    this.#failed = failed;
  }

  /** Keeps it for a while, instead of what was kept longest; releases what is kept in memory. */
  async keep(about: Pick<Descriptor, "digest" | "size">, blob: RefutedBlob): Promise<void> {
    const key = keyOf(about);
    if (blob.spool.inMemory) return this.#release(blob);
    await this.#drop(key);
    const cancel = this.#clock.after(KEPT_MS, () => void this.#drop(key));
    this.#kept.set(key, { blob, cancel });
    for (const oldest of this.#kept.keys()) if (this.#kept.size > MAX_KEPT) await this.#drop(oldest);
  }

  /** It is the caller's now. */
  take(about: Pick<Descriptor, "digest" | "size">): RefutedBlob | undefined {
    const kept = this.#kept.get(keyOf(about));
    kept?.cancel();
    this.#kept.delete(keyOf(about));
    return kept?.blob;
  }

  async close(): Promise<void> {
    await Promise.all([...this.#kept.keys()].map((key) => this.#drop(key)));
  }

  async #drop(key: string): Promise<void> {
    const kept = this.#kept.get(key);
    if (kept === undefined) return;
    kept.cancel();
    this.#kept.delete(key);
    await this.#release(kept.blob);
  }

  async #release({ spool }: RefutedBlob): Promise<void> {
    await spool.release().catch(this.#failed);
  }
}
