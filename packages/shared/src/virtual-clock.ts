import type { Clock } from "./clock.ts";

interface Event {
  readonly at: number;
  /** Of events at the same time, who was first is first. */
  readonly nth: number;
  callback: (() => void) | undefined;
}

const isBefore = (a: Event, b: Event): boolean => a.at < b.at || (a.at === b.at && a.nth < b.nth);

/**
 * Time that passes only when it is told to, for simulations and tests: from event to event, and after each everything that
 * promises had to do is done. The same calls in the same order make the same run, whatever the machine.
 */
export class VirtualClock implements Clock {
  /** A binary heap, the next event on top. */
  readonly #heap: Event[] = [];
  #now: number;
  #nth = 0;
  #live = 0;

  /** Milliseconds since the epoch, default 0. */
  constructor(start = 0) {
    this.#now = start;
  }

  now(): number {
    return this.#now;
  }

  date(): number {
    return this.#now;
  }

  /** Events to come. */
  get pending(): number {
    return this.#live;
  }

  after(ms: number, callback: () => void): () => void {
    const event: Event = { at: this.#now + Math.max(0, ms), nth: this.#nth++, callback };
    this.#live += 1;
    this.#push(event);
    return () => {
      if (event.callback === undefined) return;
      event.callback = undefined;
      this.#live -= 1;
    };
  }

  /**
   * Lets time pass, `ms` milliseconds or until `done` says so (asked after each event). Resolves to whether `done` did;
   * false when the time is over or nothing is left to happen.
   */
  async run(ms: number, done: () => boolean = () => false): Promise<boolean> {
    const end = this.#now + ms;
    await settle();
    while (!done()) {
      const event = this.#pop(end);
      if (event === undefined) {
        if (Number.isFinite(end)) this.#now = Math.max(this.#now, end);
        return done();
      }
      this.#now = event.at;
      this.#live -= 1;
      const { callback } = event;
      event.callback = undefined;
      callback?.();
      await settle();
    }
    return true;
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let at = heap.push(event) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent];
      if (above === undefined || !isBefore(event, above)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = event;
  }

  /** The next event that was not taken back, unless it is later than `end`. */
  #pop(end: number): Event | undefined {
    for (;;) {
      const top = this.#heap[0];
      if (top === undefined || (top.callback !== undefined && top.at > end)) return undefined;
      this.#removeTop();
      if (top.callback !== undefined) return top;
    }
  }

  #removeTop(): void {
    const heap = this.#heap;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      const [left, right] = [heap[child], heap[child + 1]];
      if (left === undefined) break;
      if (right !== undefined && isBefore(right, left)) child += 1;
      const least = heap[child];
      if (least === undefined || isBefore(last, least)) break;
      heap[at] = least;
      at = child;
    }
    heap[at] = last;
  }
}

/** When this resolves, whatever promises had to do is done: the event loop comes to `setImmediate` after all of it. */
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
