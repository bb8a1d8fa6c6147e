import type { Clock } from "@p2p-mirror/shared";

/** One direction of a link; what goes over it shares its rate. */
export interface Link {
  /** Bytes a second; may change, followed by `Flows.changed`. */
  rate: number;
}

export interface FlowOptions {
  readonly from: string;
  readonly to: string;
  readonly links: readonly Link[];
  /** Its share of a link against others'; default 1. */
  readonly weight?: number;
  /** Bytes until `arrived` is called first. */
  readonly bytes: number;
  /** So many bytes have arrived; returns how many come next, 0 when that was all. */
  readonly arrived: () => number;
}

/** Bytes on their way over several links. */
export class Flow {
  readonly from: string;
  readonly to: string;
  /** Bytes a second at the moment. */
  rate = 0;
  /** Bytes that went over the links. */
  moved = 0;
  /** Bytes until the next call of `arrived`. */
  left: number;
  /** Whoever reads it does not want more at the moment. */
  suspended = false;
  over = false;
  readonly links: readonly Link[];
  readonly weight: number;
  readonly arrived: () => number;

  constructor({ from, to, links, weight = 1, bytes, arrived }: FlowOptions) {
    this.from = from;
    this.to = to;
    this.links = links;
    this.weight = weight;
    this.left = bytes;
    this.arrived = arrived;
  }
}

/** Rounding of times leaves parts of a byte. */
const NOTHING = 0.01;

interface Load {
  /** Not given away yet. */
  free: number;
  flows: Flow[];
  /** The weights of those of them that have no rate yet. */
  open: number;
  /** How many these are: what rounding leaves of the weights is not nothing. */
  openFlows: number;
}

/**
 * What TCP does with links, as a fluid: every flow gets its max-min fair share by weight, anew whenever one begins or ends. Time is
 * looked at only when something arrives or changes.
 */
export class Flows {
  readonly #clock: Clock;
  readonly #quantumMs: number;
  readonly #blocked: (from: string, to: string) => boolean;
  readonly #flows = new Set<Flow>();
  #at: number;
  #sharedAt = -Infinity;
  #cancel: (() => void) | undefined;
  #dueAt = Infinity;
  #dirty = false;

  /**
   * `quantumMs`: rates are found at most so often, what begins in between waits (crowds of a thousand, else 0).
   * `blocked`: nothing goes from one to the other now.
   */
  constructor(clock: Clock, quantumMs: number, blocked: (from: string, to: string) => boolean) {
    this.#clock = clock;
    this.#quantumMs = quantumMs;
    this.#blocked = blocked;
    this.#at = clock.now();
  }

  get size(): number {
    return this.#flows.size;
  }

  start(options: FlowOptions): Flow {
    const flow = new Flow(options);
    this.#flows.add(flow);
    this.changed();
    return flow;
  }

  suspend(flow: Flow): void {
    if (flow.over || flow.suspended) return;
    this.#advance();
    flow.suspended = true;
    this.changed();
  }

  resume(flow: Flow): void {
    if (flow.over || !flow.suspended) return;
    flow.suspended = false;
    this.changed();
  }

  /** It goes no further. */
  end(flow: Flow): void {
    if (flow.over) return;
    this.#advance();
    flow.over = true;
    flow.rate = 0;
    this.#flows.delete(flow);
    this.changed();
  }

  /** Rates of links, or who is blocked, are other ones now. */
  changed(): void {
    this.#dirty = true;
    this.#wakeAt(Math.max(this.#clock.now(), this.#sharedAt + this.#quantumMs));
  }

  /** Bytes that a flow has moved by now. */
  movedBy(flow: Flow): number {
    this.#advance();
    return flow.moved;
  }

  #wakeAt(at: number): void {
    if (at >= this.#dueAt) return;
    this.#cancel?.();
    this.#dueAt = at;
    this.#cancel = this.#clock.after(at - this.#clock.now(), () => this.#turn());
  }

  #turn(): void {
    this.#cancel = undefined;
    this.#dueAt = Infinity;
    this.#advance();
    const ready: Flow[] = [];
    for (const flow of this.#flows) if (!flow.suspended && flow.left <= NOTHING) ready.push(flow);
    for (const flow of ready) this.#deliver(flow);
    // What is delivered has consequences, which come first: then rates are found once for all of them.
    if (this.#dirty && ready.length > 0) return this.#wakeAt(this.#clock.now());
    if (this.#dirty && this.#clock.now() >= this.#sharedAt + this.#quantumMs) this.#share();
    let next = this.#dirty ? this.#sharedAt + this.#quantumMs : Infinity;
    for (const { rate, left } of this.#flows) {
      if (rate > 0) next = Math.min(next, this.#clock.now() + (Math.max(0, left) / rate) * 1_000);
    }
    if (next < Infinity) this.#wakeAt(next);
  }

  #deliver(flow: Flow): void {
    if (flow.over) return;
    const next = flow.arrived();
    if (flow.over) return;
    if (next === 0) this.end(flow);
    else flow.left += next;
  }

  #advance(): void {
    const now = this.#clock.now();
    const seconds = (now - this.#at) / 1_000;
    this.#at = now;
    if (seconds <= 0) return;
    for (const flow of this.#flows) {
      if (flow.rate === 0) continue;
      const bytes = Math.min(flow.left, flow.rate * seconds);
      flow.left -= bytes;
      flow.moved += bytes;
    }
  }

  /** The link whose share is the smallest fixes the rates of its flows, and so on with what is left. */
  #share(): void {
    this.#dirty = false;
    this.#sharedAt = this.#clock.now();
    const loads = new Map<Link, Load>();
    for (const flow of this.#flows) {
      flow.rate = -1;
      if (flow.suspended || this.#blocked(flow.from, flow.to)) {
        flow.rate = 0;
        continue;
      }
      for (const link of flow.links) {
        let load = loads.get(link);
        if (load === undefined)
          loads.set(link, (load = { free: link.rate, flows: [], open: 0, openFlows: 0 }));
        load.flows.push(flow);
        load.open += flow.weight;
        load.openFlows += 1;
      }
    }
    const queue = new ShareQueue([...loads.values()]);
    for (let load = queue.take(); load !== undefined; load = queue.take()) {
      const share = Math.max(0, load.free / load.open);
      for (const flow of load.flows) {
        if (flow.rate >= 0) continue;
        const rate = share * flow.weight;
        flow.rate = rate;
        for (const link of flow.links) {
          const other = loads.get(link);
          if (other === undefined) continue;
          other.free -= rate;
          other.open -= flow.weight;
          other.openFlows -= 1;
        }
      }
    }
  }
}

/** Links by what each of their flows would get. That only grows as others are fixed: an old number is looked at again. */
class ShareQueue {
  /** A binary heap, the smallest share on top. */
  readonly #heap: { readonly load: Load; share: number }[];

  constructor(loads: readonly Load[]) {
    // Sorted is a heap.
    this.#heap = loads
      .map((load) => ({ load, share: load.free / load.open }))
      .toSorted((a, b) => a.share - b.share);
  }

  take(): Load | undefined {
    for (;;) {
      const [top] = this.#heap;
      if (top === undefined) return undefined;
      const share = top.load.openFlows === 0 ? Infinity : top.load.free / top.load.open;
      if (share <= top.share || share === Infinity) {
        const last = this.#heap.pop();
        if (last !== undefined && this.#heap.length > 0) {
          this.#heap[0] = last;
          this.#sink();
        }
        if (top.load.openFlows > 0) return top.load;
      } else {
        top.share = share;
        this.#sink();
      }
    }
  }

  #sink(): void {
    const heap = this.#heap;
    const [moving] = heap;
    if (moving === undefined) return;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      const [left, right] = [heap[child], heap[child + 1]];
      if (left === undefined) break;
      if (right !== undefined && right.share < left.share) child += 1;
      const least = heap[child];
      if (least === undefined || moving.share <= least.share) break;
      heap[at] = least;
      at = child;
    }
    heap[at] = moving;
  }
}
