import { performance } from "node:perf_hooks";

/**
 * Calls `onStall` once when fewer than `minBytes` came within `limitMs`, counted only while it runs. A timer that fires
 * late because this process was busy proves nothing about the other side, so what the sockets already hold is read first.
 */
export class ProgressWatch {
  readonly #limitMs: number;
  readonly #minBytes: number;
  readonly #onStall: () => void;
  #timer: NodeJS.Timeout | undefined;
  #pending: NodeJS.Immediate | undefined;
  #since = 0;
  #bytes = 0;

  constructor(limitMs: number, minBytes: number, onStall: () => void) {
    this.#limitMs = limitMs;
    this.#minBytes = minBytes;
    this.#onStall = onStall;
  }

  /** Starts, or goes on after `stop`, with the full limit. */
  start(): void {
    if (this.#timer !== undefined || this.#pending !== undefined) return;
    this.#since = performance.now();
    this.#bytes = 0;
    this.#arm(this.#limitMs);
  }

  stop(): void {
    clearTimeout(this.#timer);
    clearImmediate(this.#pending);
    this.#timer = undefined;
    this.#pending = undefined;
  }

  advance(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes < this.#minBytes) return;
    this.#bytes = 0;
    this.#since = performance.now();
  }

  #arm(ms: number): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#pending = setImmediate(() => {
        this.#pending = undefined;
        this.#check();
      });
    }, ms);
  }

  #check(): void {
    const left = this.#since + this.#limitMs - performance.now();
    if (left > 0) this.#arm(Math.max(1, left));
    else this.#onStall();
  }
}
