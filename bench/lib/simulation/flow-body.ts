import { Readable } from "node:stream";
import type { Flow, Flows, Link } from "./flows.ts";

export interface FlowBodyOptions {
  readonly from: string;
  readonly to: string;
  readonly links: readonly Link[];
  /** See Flows. */
  readonly weight?: number;
  /** What comes, in this order; asked for as it is due. Undefined: that was all. */
  readonly next: () => Buffer | undefined;
  /** The first bytes, of which the reader wants none; default 0. */
  readonly unwanted?: number;
  /** A chunk is about to be read. */
  readonly arrived: () => void;
  /** It has ended, whichever way. */
  readonly closed: () => void;
}

/** A connection buffers this much for a reader that is slow. */
export const BUFFERED = 256 * 1024;

/** A body whose bytes come over modelled links. A reader that does not read slows it down, as TCP does. */
export class FlowBody extends Readable {
  readonly #flows: Flows;
  readonly #flow: Flow;
  readonly #options: FlowBodyOptions;
  #chunk: Buffer | undefined;
  #held = false;
  #unwanted: number;
  /** Bytes that wait to be read, or were read and not given back. */
  inMemory = 0;

  constructor(flows: Flows, options: FlowBodyOptions) {
    super({ highWaterMark: BUFFERED });
    this.#flows = flows;
    this.#options = options;
    this.#unwanted = options.unwanted ?? 0;
    this.#chunk = options.next();
    const { from, to, links, weight } = options;
    const bytes = this.#chunk?.length ?? 0;
    this.#flow = flows.start({
      from,
      to,
      links,
      bytes,
      arrived: () => this.#arrived(),
      ...(weight !== undefined && { weight }),
    });
  }

  /** Bytes that have come over the links, read or not. */
  get moved(): number {
    return this.#flows.movedBy(this.#flow);
  }

  /** Bytes are due that nobody holds up but the other side. */
  get waits(): boolean {
    return !this.#flow.suspended;
  }

  /** Nothing comes, whatever the reader wants, until it is released. */
  hold(): void {
    this.#held = true;
    this.#flows.suspend(this.#flow);
  }

  release(): void {
    this.#held = false;
    this.#flows.resume(this.#flow);
  }

  /** As bodies of real connections: the reader does not look at it any more. */
  recycle(chunk: Uint8Array): void {
    this.inMemory -= chunk.length;
  }

  override _read(): void {
    if (!this.#held) this.#flows.resume(this.#flow);
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this.#flows.end(this.#flow);
    this.#options.closed();
    callback(error);
  }

  /** How many bytes come next. */
  #arrived(): number {
    const chunk = this.#chunk;
    this.#chunk = this.#options.next();
    this.#options.arrived();
    if (this.destroyed) return 0;
    const passed = Math.min(this.#unwanted, chunk?.length ?? 0);
    this.#unwanted -= passed;
    this.inMemory += (chunk?.length ?? 0) - passed;
    const more = chunk === undefined || this.push(chunk);
    if (this.#chunk === undefined) this.push(null);
    else if (!more) this.#flows.suspend(this.#flow);
    return this.#chunk?.length ?? 0;
  }
}
