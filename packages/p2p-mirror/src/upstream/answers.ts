import { NotFoundError, SourceError, type Repository } from "@p2p-mirror/shared";
import { readBounded } from "./body.ts";
import type { RequestKind, WireAnswer } from "./transport.ts";
import { discard } from "./transport.ts";

const MAX_ERROR_BYTES = 16 * 1024;

export interface FailedRequest {
  readonly kind: RequestKind;
  readonly repository: Repository;
  readonly method: string;
  /** What was asked for, as an error may name it. */
  readonly what: string;
}

/**
 * The error an answer stands for, its body consumed. `fromRegistry`: false for the target of a redirect, whose refusal
 * says nothing about what this node may see.
 */
export async function failureOf(
  request: FailedRequest,
  answer: WireAnswer,
  fromRegistry: boolean,
  retryAfterMs: number | undefined,
): Promise<SourceError | NotFoundError> {
  const { registry } = request.repository;
  const { status } = answer;
  if (status === 404 || status === 410)
    return new NotFoundError(await unknownCode(request, answer), request.what);
  discard(answer);
  if (status === 429) return new SourceError("RATE_LIMITED", registry, { status, retryAfterMs });
  const denied = fromRegistry && (status === 401 || status === 403);
  const message = `answered ${status} to ${request.method} of ${request.what}`;
  return new SourceError(denied ? "DENIED" : "STATUS", registry, { message, status, retryAfterMs });
}

async function unknownCode(request: FailedRequest, answer: WireAnswer): Promise<NotFoundError["code"]> {
  if (request.kind === "blob" || request.method === "HEAD") {
    discard(answer);
    return request.kind === "blob" ? "BLOB_UNKNOWN" : "MANIFEST_UNKNOWN";
  }
  const says = await firstErrorCode(answer, request.repository.registry);
  return says === "NAME_UNKNOWN" || request.kind === "tags" ? "NAME_UNKNOWN" : "MANIFEST_UNKNOWN";
}

/** The code of an OCI error body (distribution spec 1.1, "Error Codes"), undefined when it is none. */
async function firstErrorCode(answer: WireAnswer, source: string): Promise<string | undefined> {
  try {
    const json: unknown = JSON.parse(
      (await readBounded(answer.body, MAX_ERROR_BYTES, source)).toString("utf8"),
    );
    if (typeof json !== "object" || json === null || !("errors" in json)) return undefined;
    const first: unknown = Array.isArray(json.errors) ? json.errors[0] : undefined;
    if (typeof first !== "object" || first === null || !("code" in first)) return undefined;
    return typeof first.code === "string" ? first.code : undefined;
  } catch {
    return undefined;
  }
}
