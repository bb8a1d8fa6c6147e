import {
  InvalidInputError,
  parseContentRange,
  SourceError,
  type ByteRange,
  type Digest,
  type RateLimit,
  type Repository,
} from "@p2p-mirror/shared";
import { BlobBody } from "./body.ts";
import type { UpstreamMetrics } from "./metrics.ts";
import type { ObjectAnswer, ObjectClient } from "./object-client.ts";
import type { Endpoint } from "./registry-config.ts";
import { discard, headerOf } from "./transport.ts";
import type { UpstreamBlob } from "./upstream.ts";

export interface BlobAnswer extends UpstreamBlob {
  readonly anonymous: boolean;
}

export interface BlobRequest {
  readonly endpoint: Endpoint;
  readonly repository: Repository;
  readonly digest: Digest;
  readonly signal: AbortSignal | undefined;
}

export interface BlobDeps {
  readonly metrics: UpstreamMetrics;
  readonly limit?: RateLimit | undefined;
}

/** Content-Length, when it is one. */
function lengthOf(answer: ObjectAnswer): number | undefined {
  const text = headerOf(answer, "content-length")?.trim();
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

/** What a 206 holds; `size` undefined for `bytes 0-9/*`. @throws InvalidInputError */
function contentRange(answer: ObjectAnswer): { range: ByteRange; size: number | undefined } {
  const header = headerOf(answer, "content-range") ?? "";
  const sizeless = /^bytes (\d{1,15})-(\d{1,15})\/\*$/.exec(header);
  if (sizeless === null) return parseContentRange(header);
  return { range: { start: Number(sizeless[1]), end: Number(sizeless[2]) + 1 }, size: undefined };
}

/**
 * GET of a blob or a part of it. A 206 must be the part that was asked for; a 200 to a range is the blob from its start,
 * ended where the range ends.
 */
export function fetchBlob(
  client: ObjectClient,
  deps: BlobDeps,
  request: BlobRequest,
  range: ByteRange | undefined,
): Promise<BlobAnswer> {
  const { endpoint, repository, digest, signal } = request;
  return client.run(
    endpoint,
    {
      kind: "blob",
      method: "GET",
      repository,
      rest: `blobs/${digest}`,
      ...(range === undefined ? {} : { headers: { range: `bytes=${range.start}-${range.end - 1}` } }),
      rememberRedirect: true,
      signal,
    },
    (answer) => {
      try {
        return open(answer, range, request, deps);
      } catch (error) {
        discard(answer);
        throw error;
      }
    },
  );
}

function open(
  answer: ObjectAnswer,
  range: ByteRange | undefined,
  { endpoint, repository: { registry }, signal }: BlobRequest,
  { metrics, limit }: BlobDeps,
): BlobAnswer {
  const label = metrics.label(endpoint.registry);
  const bodyOf = (length: number | undefined, truncate: boolean): BlobBody =>
    new BlobBody(answer.body, {
      source: registry,
      length,
      truncate,
      signal,
      limit,
      onBytes: (count) => metrics.bytes.inc({ registry: label }, count),
      onFailure: (error) => metrics.errors.inc({ registry: label, code: error.code }),
    });
  const { anonymous } = answer;
  const length = lengthOf(answer);
  if (answer.status !== 206) {
    // Length 0 without a body at all, or a status like 204, is no blob; an empty one says so itself.
    const wanted = range === undefined || (length !== undefined && length <= range.end) ? length : range.end;
    return { size: length, start: 0, body: bodyOf(wanted, wanted !== length), anonymous };
  }
  const part = partOf(answer, registry);
  const end = part.size === undefined || range === undefined ? range?.end : Math.min(range.end, part.size);
  const expected = part.range.end - part.range.start;
  const fits = range !== undefined && part.range.start === range.start && part.range.end === end;
  if (!fits || (length !== undefined && length !== expected)) {
    const got = `${part.range.start}-${part.range.end}`;
    throw new SourceError("STATUS", registry, {
      message: `another part than asked for: ${got}`,
      status: 206,
    });
  }
  return { size: part.size, start: part.range.start, body: bodyOf(expected, false), anonymous };
}

function partOf(answer: ObjectAnswer, registry: string): { range: ByteRange; size: number | undefined } {
  try {
    return contentRange(answer);
  } catch (error) {
    if (!(error instanceof InvalidInputError)) throw error;
    throw new SourceError("STATUS", registry, {
      message: "a 206 without a range",
      status: 206,
      cause: error,
    });
  }
}

/**
 * The size by HEAD; where that is refused at the end of a redirect (presigned links are for one method) or has no length,
 * by the Content-Range of the first byte.
 */
export async function fetchBlobSize(
  client: ObjectClient,
  deps: BlobDeps,
  request: BlobRequest,
): Promise<number> {
  const { endpoint, repository, digest, signal } = request;
  const size = await client
    .run(
      endpoint,
      {
        kind: "blob",
        method: "HEAD",
        repository,
        rest: `blobs/${digest}`,
        accept: [400, 405, 501],
        signal,
      },
      (answer) => {
        discard(answer);
        const identity = (headerOf(answer, "content-encoding") ?? "identity") === "identity";
        return answer.status < 300 && identity ? lengthOf(answer) : undefined;
      },
    )
    .catch((error: unknown) => {
      if (error instanceof SourceError && error.code === "STATUS" && error.status === 403) return undefined;
      throw error;
    });
  if (size !== undefined) return size;
  const first = await fetchBlob(client, deps, request, { start: 0, end: 1 });
  first.body.on("error", () => undefined).destroy();
  if (first.size !== undefined) return first.size;
  throw new SourceError("STATUS", repository.registry, { message: "does not say how large a blob is" });
}
