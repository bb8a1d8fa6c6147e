import type { IncomingMessage, ServerResponse } from "node:http";
import { SourceError, type Logger } from "@p2p-mirror/shared";
import type { SourceKind } from "../transfer/content.ts";
import type { Pending } from "./connections.ts";
import type { DeclineReason } from "./decline-reason.ts";
import type { DistributionPath } from "./distribution-path.ts";
import type { CutReason, HttpMetrics } from "./metrics.ts";

/** Reason of an exchange's signal when the client is gone. */
export class ClientGone extends Error {
  override readonly name = "ClientGone";
}

/** Reason of an exchange's signal when this process is closing and its time to drain is over. */
export class Draining extends Error {
  override readonly name = "Draining";
}

export interface ExchangeOptions {
  readonly id: string;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Milliseconds to the first byte of the answer; then the signal aborts with a SourceError (`NO_FIRST_BYTE`). */
  readonly firstByteMs: number;
  readonly metrics: HttpMetrics;
  readonly logger: Logger;
}

/** One request and its answer: its abort signal, its deadline, and what metrics and logs say of it in the end. */
export class Exchange implements Pending {
  readonly id: string;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Resolves when the answer is over, whatever its end. */
  readonly over: Promise<void>;
  path: DistributionPath | undefined;
  source: SourceKind | undefined;
  /** Why it was declined. */
  reason: DeclineReason = "none";
  /** Counts the content's bytes that were handed to the client. */
  body: { readonly sent: number } | undefined;

  readonly #metrics: HttpMetrics;
  readonly #logger: Logger;
  readonly #controller = new AbortController();
  readonly #firstByteMs: number;
  #deadline: NodeJS.Timeout | undefined;
  readonly #startedAt = performance.now();
  #cut: CutReason | undefined;
  #stale = false;
  #delivered = false;
  #finished = false;
  #resolveOver: (() => void) | undefined;

  constructor(options: ExchangeOptions) {
    this.id = options.id;
    this.request = options.request;
    this.response = options.response;
    this.#metrics = options.metrics;
    this.#logger = options.logger;
    this.#firstByteMs = options.firstByteMs;
    this.#metrics.inFlight.inc();
    this.over = new Promise((resolve) => {
      this.#resolveOver = resolve;
    });
    this.response.once("close", () => this.#finish());
  }

  /** The request's turn on its connection has come. @throws the signal's reason when the client left before */
  begin(): void {
    this.signal.throwIfAborted();
    this.#deadline = setTimeout(
      () => this.abort(new SourceError("NO_FIRST_BYTE", "mirror")),
      this.#firstByteMs,
    );
  }

  /** The connection is gone: an answer that waits behind another one never gets a `close` of its own. */
  lost(): void {
    this.#finish();
  }

  /** Aborts when the client is gone, the deadline to the first byte has passed, or the process is closing. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get clientGone(): boolean {
    return this.signal.reason instanceof ClientGone;
  }

  /** Bytes of content handed to the client so far. */
  get bytes(): number {
    return this.body?.sent ?? 0;
  }

  abort(reason: Error): void {
    this.#controller.abort(reason);
  }

  /** The deadline to the first byte is met, if only by headers. */
  headersSent(): void {
    clearTimeout(this.#deadline);
  }

  firstByte(): void {
    this.headersSent();
    if (this.source === undefined || this.path === undefined) return;
    this.#metrics.firstByte.observe({ kind: this.path.kind, source: this.source }, this.#seconds());
  }

  /** The tag came from a record of the cluster. */
  markStale(): void {
    this.#stale = true;
    this.#metrics.staleTags.inc();
  }

  /** Every byte of the answer was given to the socket. */
  delivered(): void {
    this.#delivered = true;
  }

  cut(reason: CutReason): void {
    this.#cut = reason;
    this.#metrics.cuts.inc({ reason });
  }

  #seconds(): number {
    return (performance.now() - this.#startedAt) / 1000;
  }

  #finish(): void {
    if (this.#finished) return;
    this.#finished = true;
    this.#resolveOver?.();
    clearTimeout(this.#deadline);
    const aborted = this.#cut === undefined && !this.#delivered && !this.response.writableFinished;
    if (aborted) this.#metrics.clientAborts.inc();
    if (!this.response.writableFinished) this.abort(new ClientGone());
    const kind = this.path?.kind ?? "invalid";
    const { method = "" } = this.request;
    const status = this.response.headersSent ? this.response.statusCode : 0;
    this.#metrics.inFlight.dec();
    this.#metrics.requests.inc({
      kind,
      method: method === "GET" || method === "HEAD" ? method : "other",
      status,
      source: this.source ?? "none",
      reason: this.reason,
    });
    this.#metrics.duration.observe({ kind }, this.#seconds());
    if (this.source !== undefined) this.#metrics.sentBytes.inc({ source: this.source }, this.bytes);
    if (!this.#logger.isLevelEnabled("debug")) return;
    this.#logger.debug(
      {
        requestId: this.id,
        method: method.slice(0, 16),
        kind,
        ...subjectOf(this.path),
        status,
        source: this.source ?? "none",
        bytes: this.bytes,
        ms: this.milliseconds(),
        ...(this.reason === "none" ? {} : { reason: this.reason }),
        ...(this.#stale ? { stale: true } : {}),
        ...(this.#cut === undefined ? {} : { cut: this.#cut }),
        ...(aborted ? { aborted } : {}),
      },
      "request",
    );
  }

  /** Since the request came, rounded to a tenth. */
  milliseconds(): number {
    return Math.round(this.#seconds() * 10_000) / 10;
  }
}

/** What a request was about, in the words of the log. */
export function subjectOf(path: DistributionPath | undefined): Record<string, string> {
  if (path === undefined || path.kind === "base") return {};
  const { registry, repository } = path;
  if (path.kind === "tag") return { registry, repository, tag: path.tag };
  if (path.kind === "tags") return { registry, repository };
  return { registry, repository, digest: path.digest };
}
