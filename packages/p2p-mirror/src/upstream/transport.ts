import {
  linkSignal,
  type BlockPool,
  type RateLimit,
  type RecyclingReadable,
  type SourceError,
} from "@p2p-mirror/shared";
import { LRUCache } from "lru-cache";
import { errors } from "undici";
import { Dispatchers, type DispatcherOptions } from "./dispatchers.ts";
import { Gate, type GateOptions } from "./gate.ts";
import type { UpstreamMetrics } from "./metrics.ts";
import type { Endpoint } from "./registry-config.ts";
import { connectError, reason } from "./transport-errors.ts";

export type RequestKind = "manifest" | "blob" | "tags" | "referrers" | "token";

export interface WireRequest {
  readonly kind: RequestKind;
  readonly method: "GET" | "HEAD" | "POST";
  readonly headers: Readonly<Record<string, string | readonly string[]>>;
  readonly body?: string;
  readonly signal: AbortSignal | undefined;
}

/**
 * An answer whose body must be consumed or destroyed. Its chunks are parts of blocks and may be given back; who does not
 * leaves them to the garbage collector. Header names are in lower case.
 */
export interface WireAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: RecyclingReadable & { dump(options?: { limit: number }): Promise<void> };
  readonly url: URL;
}

/** The first value of a header. */
export function headerOf(answer: Pick<WireAnswer, "headers">, name: string): string | undefined {
  const value = answer.headers[name];
  return typeof value === "string" ? value : value?.[0];
}

export function headersOf(answer: Pick<WireAnswer, "headers">, name: string): readonly string[] {
  const value = answer.headers[name];
  return value === undefined ? [] : typeof value === "string" ? [value] : value;
}

/** Lets go of an answer nobody wants: a short body is read to keep the connection, a long one cuts it. */
export function discard(answer: WireAnswer): void {
  answer.body.on("error", () => undefined);
  answer.body.dump({ limit: 64 * 1024 }).catch(() => undefined);
}

export interface TransportOptions extends DispatcherOptions {
  readonly breaker: Omit<GateOptions, "onChange">;
}

/** Requests on the wire: connections, deadlines, one gate per host, and the count of it all. */
export class Transport {
  readonly #dispatchers: Dispatchers;
  readonly #options: TransportOptions;
  readonly #metrics: UpstreamMetrics;
  readonly #onReachable: (registry: string) => void;
  readonly #blocks: BlockPool;
  readonly #limit: RateLimit | undefined;
  readonly #gates = new LRUCache<string, Gate>({ max: 1000 });
  readonly #closing = new AbortController();

  constructor(
    options: TransportOptions,
    deps: {
      readonly metrics: UpstreamMetrics;
      /** A host of it was found unreachable, or has answered again. */
      readonly onReachable: (registry: string) => void;
      readonly blocks: BlockPool;
      readonly limit?: RateLimit | undefined;
    },
  ) {
    this.#options = options;
    this.#dispatchers = new Dispatchers(options, deps);
    this.#blocks = deps.blocks;
    this.#metrics = deps.metrics;
    this.#onReachable = deps.onReachable;
    this.#limit = deps.limit;
  }

  /** The gate of the host a URL is at. `endpoint` is who it belongs to in metrics and errors. */
  gate(endpoint: Endpoint, origin: string = endpoint.origin): Gate {
    const key = `${endpoint.registry} ${origin}`;
    let gate = this.#gates.get(key);
    if (gate === undefined) {
      const registry = this.#metrics.label(endpoint.registry);
      const onChange = (reachable: boolean): void => {
        if (origin === endpoint.origin) this.#onReachable(endpoint.registry);
        if (!reachable) this.#metrics.trips.inc({ registry });
      };
      const source = origin === endpoint.origin ? endpoint.registry : `${endpoint.registry} (${origin})`;
      gate = new Gate(source, { ...this.#options.breaker, onChange }, () => performance.now());
      this.#gates.set(key, gate);
    }
    return gate;
  }

  /** The same, if it was ever asked. */
  knownGate(endpoint: Endpoint): Gate | undefined {
    return this.#gates.get(`${endpoint.registry} ${endpoint.origin}`);
  }

  /**
   * One request, one answer, of whatever status; no redirect is followed.
   * @throws SourceError (`UNREACHABLE`, `NO_FIRST_BYTE`, `RATE_LIMITED` without asking), or the signal's reason
   */
  async send(endpoint: Endpoint, url: URL, request: WireRequest): Promise<WireAnswer> {
    const registry = this.#metrics.label(endpoint.registry);
    const count = (outcome: string): void =>
      this.#metrics.requests.inc({ registry, kind: request.kind, outcome });
    const gate = this.gate(endpoint, url.origin);
    const pass = gate.enter();
    const linked = linkSignal([request.signal, this.#closing.signal]);
    try {
      const { statusCode, headers, body } = await this.#dispatchers.for(endpoint, url).request({
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        method: request.method,
        headers: mutable({ "user-agent": "p2p-mirror", "accept-encoding": "identity", ...request.headers }),
        body: request.body ?? null,
        signal: linked.signal,
      });
      body.once("close", () => linked.release());
      pass.done("answered");
      gate.failure = undefined;
      const date = Date.parse(headerOf({ headers }, "date") ?? "");
      if (!Number.isNaN(date)) gate.skewMs = date - Date.now();
      count(`${Math.floor(statusCode / 100)}xx`);
      // Blobs take their turns (body.ts); all else is small, and waited for by somebody who could get on with it.
      if (request.kind !== "blob" && request.method !== "HEAD") this.#limit?.charge(lengthOf(headers));
      const recycle = (chunk: Uint8Array): void => this.#blocks.recycle(chunk);
      return { status: statusCode, headers, body: Object.assign(body, { recycle }), url };
    } catch (error) {
      linked.release();
      if (linked.signal.aborted) {
        pass.done("abandoned");
        throw error;
      }
      pass.done(
        error instanceof errors.ConnectTimeoutError || error instanceof errors.HeadersTimeoutError
          ? "silent"
          : "failed",
      );
      gate.failure = reason(error);
      const mapped: SourceError = connectError(endpoint.registry, error);
      count(mapped.code);
      throw mapped;
    }
  }

  async close(): Promise<void> {
    this.#closing.abort(new DOMException("the mirror is closing", "AbortError"));
    await this.#dispatchers.close();
  }
}

/** Of the body in bytes; 0 when the head does not say it. */
const lengthOf = (headers: WireAnswer["headers"]): number => {
  const length = headerOf({ headers }, "content-length") ?? "";
  return /^\d{1,15}$/.test(length) ? Number(length) : 0;
};

const mutable = (
  headers: Readonly<Record<string, string | readonly string[]>>,
): Record<string, string | string[]> =>
  Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [
      name.toLowerCase(),
      typeof value === "string" ? value : [...value],
    ]),
  );
