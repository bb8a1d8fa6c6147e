import { TIMES } from "./times.ts";

/** In `TIMES.holderPatience`, of all of them, members together: less than at this rate is next to nothing. */
const SLOW_BYTES = 512 * 1024;
/** And this part of what they have brought before. */
const CRAWLS = 1 / 8;

/**
 * Holders of a blob that never were members of its room: they are known from hearsay, say nothing, and are judged by what members
 * get that no lease has brought. As long as one is good, nothing need be fetched from upstream.
 */
export class HoldersOutside {
  /** Were not to be had: whoever names them again is not heard. */
  readonly #doubted = new Set<string>();
  #count = 0;
  #dueAt = 0;
  #watchedMs: number = TIMES.holderPatience;
  /** Bytes a millisecond. */
  #best = 0;
  /** Since they were looked at: bytes that members have got, and had not; and what leases had brought before. */
  #secured = 0;
  #leasedBefore = 0;
  #fail = false;

  /** They have all of it, and bring it. */
  get deliver(): boolean {
    return this.#count > 0 && !this.#fail;
  }

  get any(): boolean {
    return this.#count > 0;
  }

  /** `leased`: bytes that leases have brought so far. */
  add(now: number, leased: number): void {
    this.#count += 1;
    if (this.#count === 1) this.#watch(now, leased, TIMES.holderPatience);
  }

  remove(): void {
    this.#count -= 1;
  }

  doubt(id: string): void {
    this.#doubted.add(id);
  }

  /** It has come itself. */
  believe(id: string): void {
    this.#doubted.delete(id);
  }

  isDoubted(id: string): boolean {
    return this.#doubted.has(id);
  }

  /** A member has got what no member had. */
  secured(bytes: number): void {
    this.#secured += bytes;
  }

  /**
   * Those that bring next to nothing fail: upstream is asked, too, until they bring more. The first pieces of a good one that all ask
   * at once may come late, all together; who has brought something has twice the time. True when that has changed.
   */
  judge(now: number, leased: number): boolean {
    if (this.#count === 0 || now < this.#dueAt) return false;
    const fromUpstream = leased - this.#leasedBefore;
    const fromHolders = Math.max(0, this.#secured - fromUpstream);
    const rate = fromHolders / this.#watchedMs;
    this.#best = Math.max(this.#best, rate);
    const least = Math.max(SLOW_BYTES / TIMES.holderPatience, this.#best * CRAWLS);
    const failed = this.#fail;
    this.#fail = rate < least || fromHolders < fromUpstream;
    this.#watch(now, leased, this.#fail ? TIMES.holderPatience : 2 * TIMES.holderPatience);
    return this.#fail !== failed;
  }

  #watch(now: number, leased: number, ms: number): void {
    this.#dueAt = now + ms;
    this.#watchedMs = ms;
    this.#secured = 0;
    this.#leasedBefore = leased;
  }
}
