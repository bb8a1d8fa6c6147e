import type { ServerResponse } from "node:http";
import type { Readable } from "node:stream";
import { finished, pipeline } from "node:stream/promises";
import {
  formatContentRange,
  isRecycling,
  MEDIA_TYPES,
  NotFoundError,
  raceSignal,
  readRange,
  SourceError,
  type ByteRange,
  type Digest,
  type Logger,
  type RangeRequest,
  type Repository,
} from "@p2p-mirror/shared";
import type { BlobContent, Content } from "../transfer/content.ts";
import { digestHeaders, etagOf, notModified, notModifiedAnswer, type Answer } from "./answer.ts";
import { BodySink } from "./body-sink.ts";
import type { CutMemory } from "./cut-memory.ts";
import { Draining, type Exchange } from "./exchange.ts";
import type { CutReason, HttpMetrics } from "./metrics.ts";
import { OciError } from "./oci-errors.ts";

export interface BlobDeps {
  readonly content: Content;
  readonly cutMemory: CutMemory;
  readonly metrics: HttpMetrics;
  readonly logger: Logger;
}

export interface BlobRequest {
  readonly exchange: Exchange;
  readonly repository: Repository;
  readonly digest: Digest;
  /** Milliseconds for which the source of a body may give nothing. */
  readonly stallMs: number;
  /** Milliseconds since the request after which headers are sent without a byte behind them, once there is a source. */
  readonly headersMs: number;
  /** Called before the raw answer is written to; no `Answer` comes back then. */
  readonly takeOver: () => void;
  /** Ends the connection with FIN. */
  readonly cut: () => void;
}

/**
 * `HEAD` and `GET /v2/<repo>/blobs/<digest>`. Returns what is to be answered, or undefined when a body was streamed, to
 * its end or not. Throws only before the headers: a source that is lost before the first byte is still a clean decline.
 */
export async function serveBlob(request: BlobRequest, deps: BlobDeps): Promise<Answer | undefined> {
  const { exchange, repository, digest } = request;
  const { signal } = exchange;
  const { headers, method } = exchange.request;
  if (method === "GET" && deps.cutMemory.declines(digest, startOf(headers.range))) {
    deps.metrics.cutResumes.inc();
    exchange.reason = "cut_memory";
    throw new NotFoundError("BLOB_UNKNOWN", `${digest}, cut short just now,`);
  }
  if (method === "HEAD" || notModified(headers["if-none-match"], digest)) return answerHead(request, deps);
  const blob = await raceSignal(
    deps.content.blob(repository, digest, { signal, start: startOf(headers.range) }),
    signal,
  );
  exchange.source = blob.source;
  const asked = rangeOf(headers, digest, blob.size);
  if (asked.kind === "unsatisfiable") {
    throw new OciError(416, "RANGE_INVALID", `the blob has ${blob.size} bytes`, {
      headers: { "content-range": `bytes */${blob.size}` },
    });
  }
  const range = asked.kind === "part" ? asked.range : { start: 0, end: blob.size };
  const head = {
    status: asked.kind === "part" ? 206 : 200,
    headers: {
      ...blobHeaders(digest, range.end - range.start),
      ...(asked.kind === "part" ? { "content-range": formatContentRange(range, blob.size) } : {}),
    },
  };
  if (range.end === range.start) {
    exchange.firstByte();
    return { ...head, body: null };
  }
  await sendBody(request, deps, blob, range, head);
  return undefined;
}

/** What needs no body: HEAD, and If-None-Match with this very content. Nothing is fetched for either. */
async function answerHead({ exchange, repository, digest }: BlobRequest, deps: BlobDeps): Promise<Answer> {
  const { signal } = exchange;
  const { size, source } = await raceSignal(deps.content.blobSize(repository, digest, { signal }), signal);
  exchange.source = source;
  exchange.firstByte();
  if (notModified(exchange.request.headers["if-none-match"], digest)) return notModifiedAnswer(digest);
  return { status: 200, headers: blobHeaders(digest, size), body: null };
}

const blobHeaders = (digest: Digest, length: number): Record<string, string> => ({
  "content-type": MEDIA_TYPES.octetStream,
  "content-length": String(length),
  "accept-ranges": "bytes",
  ...digestHeaders(digest),
});

/** The first byte a client wants, before the size of the blob is known. */
function startOf(range: string | undefined): number {
  const asked = readRange(range, Number.MAX_SAFE_INTEGER);
  return asked.kind === "part" ? asked.range.start : 0;
}

/** If-Range (RFC 9110, 13.1.5): with a validator that is not this content's, the whole is the answer. */
function rangeOf(
  headers: { range?: string | undefined; "if-range"?: string | undefined },
  digest: Digest,
  size: number,
): RangeRequest {
  const condition = headers["if-range"];
  return readRange(condition === undefined || condition === etagOf(digest) ? headers.range : undefined, size);
}

async function sendBody(
  request: BlobRequest,
  deps: BlobDeps,
  blob: BlobContent,
  range: ByteRange,
  head: { status: number; headers: Record<string, string> },
): Promise<void> {
  const { exchange } = request;
  const { response } = exchange;
  const source = await openBody(blob, range, exchange.signal);
  const sink = new BodySink({
    response,
    length: range.end - range.start,
    stallMs: request.stallMs,
    headersMs: Math.max(0, request.headersMs - exchange.milliseconds()),
    onHeaders: () => {
      exchange.headersSent();
      request.takeOver();
      response.writeHead(head.status, head.headers);
    },
    onFirstByte: () => exchange.firstByte(),
    recycle: recyclerOf(source),
    onComplete: () => {
      exchange.delivered();
      if (range.end === blob.size) served(request, deps, blob);
    },
  });
  exchange.body = sink;
  // A source that has given everything may be slow to end, or never do: it is not kept open for that.
  void exchange.over.then(() => source.destroy());
  try {
    await pump(source, sink, exchange.signal);
  } catch (error) {
    // containerd closes as soon as it has the last byte: that is a success, whatever the pipeline calls it.
    if (!sink.complete) endShort(request, deps, error);
  }
}

/**
 * A source may want its chunks back: 1 GiB of fresh buffers costs V8 a dozen collections of the whole heap, more than
 * reading and sending it.
 */
const recyclerOf = (source: Readable): ((chunk: Uint8Array) => void) | undefined =>
  isRecycling(source) ? (chunk) => source.recycle(chunk) : undefined;

/** The client has the end of the blob, and so all of it, here or with what an earlier request gave. */
function served({ exchange, repository, digest }: BlobRequest, deps: BlobDeps, blob: BlobContent): void {
  deps.cutMemory.forget(digest);
  deps.logger.info(
    {
      registry: repository.registry,
      repository: repository.repository,
      digest,
      size: blob.size,
      source: blob.source,
      ms: exchange.milliseconds(),
    },
    "blob served",
  );
}

/**
 * A pipeline that is over as soon as its sink is. `pipeline` itself also waits for the source to close, and a generator
 * that hangs in an `await` never does: the client would wait with it.
 */
async function pump(source: Readable, sink: BodySink, signal: AbortSignal): Promise<void> {
  const over = finished(sink);
  pipeline(source, sink, { signal }).catch(() => undefined);
  await over;
}

/** A body that comes after the request is over is destroyed, so that no source is left open. */
async function openBody(blob: BlobContent, range: ByteRange, signal: AbortSignal): Promise<Readable> {
  const opening = blob.open(range, { signal });
  try {
    return await raceSignal(opening, signal);
  } catch (error) {
    opening.then(
      (late) => late.destroy(),
      () => undefined,
    );
    throw error;
  }
}

/** The body could not be finished. Without a byte sent it is a decline; otherwise FIN, unless the client left first. */
function endShort(request: BlobRequest, deps: BlobDeps, error: unknown): void {
  const { exchange, digest } = request;
  const cause: unknown = exchange.signal.aborted ? exchange.signal.reason : error;
  if (exchange.clientGone) return;
  if (!wasStarted(exchange.response)) throw cause;
  const reason = cutReasonOf(cause);
  exchange.cut(reason);
  if (reason !== "drain") deps.cutMemory.remember(digest, exchange.bytes);
  deps.logger.warn(
    { requestId: exchange.id, digest, source: exchange.source, sent: exchange.bytes, reason, err: cause },
    "blob cut short",
  );
  request.cut();
}

const wasStarted = (response: ServerResponse): boolean => response.headersSent;

function cutReasonOf(cause: unknown): CutReason {
  if (cause instanceof Draining) return "drain";
  return cause instanceof SourceError && cause.code === "STALLED" ? "stall" : "source";
}
