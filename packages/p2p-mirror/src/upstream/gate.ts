import { SourceError } from "@p2p-mirror/shared";

export interface GateOptions {
  /** Failures in a row after which requests fail at once. */
  readonly failures: number;
  /** Milliseconds until one request is let through to try, after one that failed at once: trying costs nobody anything. */
  readonly refusedMs: number;
  /** The same after one that has cost its deadline; doubles with each such try up to `maxOpenMs`. */
  readonly openMs: number;
  readonly maxOpenMs: number;
  /** Called when `reachable` changes. */
  readonly onChange?: (reachable: boolean) => void;
}

/** How a request ended, as far as the host's health goes: any answer counts as `answered`, also a 500. */
export type Outcome = "answered" | "failed" | "silent" | "abandoned";

/** Leave to ask the host now; `done` must be called once. */
export interface Pass {
  done(outcome: Outcome): void;
}

/**
 * In front of one host: closed for the time a Retry-After names, and a breaker for a host that does not answer. A host
 * that is dead costs its deadline once, not every request; a missed deadline counts at once unless somebody else got an
 * answer meanwhile, since ten seconds of silence say more than a reset.
 */
export class Gate {
  readonly #source: string;
  readonly #options: GateOptions;
  readonly #now: () => number;
  /** What the host said is left of its rate limit. */
  remaining: number | undefined;
  /** What the last request that got no answer ended in; undefined once there was an answer. */
  failure: string | undefined;
  /** How far its clock is ahead of this node's, by its last answer. */
  skewMs: number | undefined;
  #failures = 0;
  #lastAnswer = -Infinity;
  #lastFailure = -Infinity;
  #openUntil = 0;
  #openings = 0;
  /** Of the openings, those that have cost a deadline. */
  #deadlines = 0;
  #probing = false;
  #limitedUntil = 0;
  #limits = 0;

  constructor(source: string, options: GateOptions, now: () => number) {
    this.#source = source;
    this.#options = options;
    this.#now = now;
  }

  /** False from when the breaker opened until an answer came. */
  get reachable(): boolean {
    return this.#openings === 0;
  }

  /** `waitMs`: until the host is asked again, while it is not. */
  get health(): { readonly state: "ok" | "unreachable" | "rate-limited"; readonly waitMs: number } {
    const now = this.#now();
    if (!this.reachable) return { state: "unreachable", waitMs: Math.max(0, this.#openUntil - now) };
    const waitMs = Math.max(0, this.#limitedUntil - now);
    return { state: waitMs > 0 ? "rate-limited" : "ok", waitMs };
  }

  /** @throws SourceError (`RATE_LIMITED` with what is left of Retry-After, `UNREACHABLE` while the breaker is open) */
  enter(): Pass {
    const now = this.#now();
    if (now < this.#limitedUntil) {
      throw new SourceError("RATE_LIMITED", this.#source, { retryAfterMs: this.#limitedUntil - now });
    }
    if (this.#openings > 0 && (now < this.#openUntil || this.#probing)) {
      throw new SourceError("UNREACHABLE", this.#source, { message: "did not answer lately" });
    }
    const probe = this.#openings > 0;
    if (probe) this.#probing = true;
    let open = true;
    return {
      done: (outcome) => {
        if (!open) return;
        open = false;
        if (probe) this.#probing = false;
        this.#record(outcome, now);
      },
    };
  }

  /**
   * The host said "not now", for so long. Without a time: a second, then twice as long each time it says so again.
   */
  limit(retryAfterMs: number | undefined): number {
    const ms = retryAfterMs ?? Math.min(1000 * 2 ** this.#limits, 60_000);
    this.#limits = Math.min(this.#limits + 1, 16);
    this.#limitedUntil = Math.max(this.#limitedUntil, this.#now() + ms);
    return ms;
  }

  /** It gave what was asked for. */
  unlimited(): void {
    this.#limits = 0;
  }

  #record(outcome: Outcome, startedAt: number): void {
    const now = this.#now();
    if (outcome === "abandoned") return;
    if (outcome === "answered") {
      this.#lastAnswer = now;
      this.#failures = 0;
      this.#deadlines = 0;
      if (this.#openings === 0) return;
      this.#openings = 0;
      this.#options.onChange?.(true);
      return;
    }
    const somebodyElseWasAnswered = this.#lastAnswer >= startedAt;
    if (somebodyElseWasAnswered) return;
    // Connections that were idle together die together: what failed side by side counts once.
    const sameEvent = outcome === "failed" && startedAt <= this.#lastFailure && this.#openings === 0;
    if (sameEvent) return;
    this.#lastFailure = now;
    this.#failures += 1;
    if (outcome === "failed" && this.#failures < this.#options.failures && this.#openings === 0) return;
    if (this.#openings > 0 && now < this.#openUntil) return;
    this.#openUntil = now + this.#openMs(outcome);
    this.#openings += 1;
    if (this.#openings === 1) this.#options.onChange?.(false);
  }

  #openMs(outcome: "failed" | "silent"): number {
    const { refusedMs, openMs, maxOpenMs } = this.#options;
    if (outcome === "failed") return refusedMs;
    const ms = Math.min(openMs * 2 ** this.#deadlines, maxOpenMs);
    this.#deadlines = Math.min(this.#deadlines + 1, 16);
    return ms;
  }
}
