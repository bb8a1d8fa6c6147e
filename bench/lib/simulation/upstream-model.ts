import { SourceError, type Repository } from "@p2p-mirror/shared";
import { pause } from "../../../packages/p2p-mirror/src/transfer/patience.ts";
import type {
  BlobSource,
  FetchedBody,
  FetchOptions,
} from "../../../packages/p2p-mirror/src/transfer/source.ts";
import { bodyOf, chunksOf, CHUNK_BYTES, RECORD_BYTES } from "./bodies.ts";
import { CrowdedLink } from "./crowded-link.ts";
import type { Link } from "./flows.ts";
import type { SimNode } from "./sim-node.ts";
import type { World } from "./world.ts";

export const UPSTREAM = "upstream";
export const REPOSITORY: Repository = { registry: "registry", repository: "repo" };

/** As the client of real upstreams: silence to the first byte, silence after it, and what it tries again by itself. */
const FIRST_BYTE_MS = 10_000;
const IDLE_MS = 30_000;
const RETRIES = 2;
const RETRY_MS = 150;
/** A link of 2 Mbit/s is thin. */
const THIN_BYTES_A_SECOND = 250_000;
/** What a registry needs before it sends. */
const THINKS_MS = 15;

/** What is wrong with upstream. Everything of it may change at any time. */
export interface UpstreamFaults {
  /** Every request fails like this. */
  failing: "500" | "429" | "gone" | undefined;
  retryAfterMs: number;
  /** It is gone, and does not come back. */
  lost: boolean;
  /** Connections are there, nothing comes. */
  stalled: boolean;
  /** Bodies end after so many bytes. */
  cutAfter: number | undefined;
  ranges: boolean;
  /** Nodes without valid credentials. */
  readonly denied: Set<string>;
}

/** The registry as a node's client sees it, and the link that all share. */
export class UpstreamModel {
  readonly link: Link;
  readonly faults: UpstreamFaults = {
    failing: undefined,
    retryAfterMs: 1_000,
    lost: false,
    stalled: false,
    cutAfter: undefined,
    ranges: true,
    denied: new Set(),
  };
  /** Bytes that went over the link, whoever had use of them; and by node. */
  sent = 0;
  readonly sentTo = new Map<string, number>();
  requests = 0;
  /** Bodies that ended by a fault before they were through: what was on the way is lost. */
  broken = 0;
  readonly #world: World;
  readonly #crowded: CrowdedLink | undefined;

  constructor(world: World, link: Link) {
    this.#world = world;
    if (world.options.crowded === true) this.#crowded = new CrowdedLink(world.random);
    this.link = link;
  }

  source(node: SimNode): BlobSource {
    let limitedUntil = 0;
    return {
      kind: "upstream",
      id: `${REPOSITORY.registry}/${REPOSITORY.repository}`,
      available: true,
      refuted: () => undefined,
      fetch: async (range, options) => {
        for (let attempt = 0; ; attempt += 1) {
          const left = limitedUntil - node.clock.now();
          if (left > 0) throw new SourceError("RATE_LIMITED", UPSTREAM, { status: 429, retryAfterMs: left });
          try {
            return await this.#once(node, range, options);
          } catch (error) {
            if (!(error instanceof SourceError)) throw error;
            if (error.retryAfterMs !== undefined) limitedUntil = node.clock.now() + error.retryAfterMs;
            if (attempt === RETRIES || !isRetried(error)) throw error;
          }
          await pause(RETRY_MS * 2 ** attempt, node.clock, options.signal);
        }
      },
    };
  }

  async #once(
    node: SimNode,
    range: { readonly start: number; readonly end: number },
    { signal }: FetchOptions,
  ): Promise<FetchedBody> {
    const { faults } = this;
    const world = this.#world;
    this.requests += 1;
    await pause(2 * world.latency(UPSTREAM, node.id) + THINKS_MS, node.clock, signal);
    const began = node.clock.now();
    while (faults.stalled) {
      if (node.clock.now() - began >= FIRST_BYTE_MS) throw new SourceError("NO_FIRST_BYTE", UPSTREAM);
      await pause(100, node.clock, signal);
    }
    this.#refuse(node);
    const start = faults.ranges ? range.start : 0;
    let sent = 0;
    const body = bodyOf(world, {
      from: UPSTREAM,
      node,
      crowded: this.#crowded,
      links: node.wan === undefined ? [this.link, node.down] : [this.link, node.wan, node.down],
      chunks: this.#chunks(node, start, range.end),
      unwanted: range.start - start,
      signal,
      moved: (bytes) => {
        sent += bytes;
        this.sent += bytes;
        this.sentTo.set(node.id, (this.sentTo.get(node.id) ?? 0) + bytes);
        const fault = faults.cutAfter !== undefined && sent >= faults.cutAfter ? "CUT" : undefined;
        if (fault === undefined || start + sent >= range.end) return;
        this.broken += 1;
        body.destroy(new SourceError(fault, UPSTREAM));
      },
      watch: { ms: IDLE_MS, minBytes: 1 },
    });
    return { start, size: world.blob.bytes.length, body };
  }

  #refuse(node: SimNode): void {
    const { faults } = this;
    if (faults.lost || faults.failing === "gone") throw new SourceError("UNREACHABLE", UPSTREAM);
    if (faults.failing === "500") throw new SourceError("STATUS", UPSTREAM, { status: 500 });
    if (faults.failing === "429") {
      const { retryAfterMs } = faults;
      throw new SourceError("RATE_LIMITED", UPSTREAM, { status: 429, retryAfterMs });
    }
    if (faults.denied.has(node.id)) throw new SourceError("DENIED", UPSTREAM, { status: 401 });
  }

  *#chunks(node: SimNode, start: number, end: number): Generator<Buffer, void, undefined> {
    const isThin = Math.min(this.link.rate, node.wan?.rate ?? Infinity) < THIN_BYTES_A_SECOND;
    const bytes = isThin || this.#crowded !== undefined ? RECORD_BYTES : CHUNK_BYTES;
    for (const chunk of chunksOf(this.#world.blob.bytes, start, end, bytes)) {
      yield node.liesAbout === undefined ? chunk : node.liesAbout(chunk);
    }
  }
}

const isRetried = (error: SourceError): boolean =>
  error.temporary && error.retryAfterMs === undefined && error.code !== "CUT" && error.code !== "STALLED";
