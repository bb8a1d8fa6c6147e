import {
  AllSourcesFailedError,
  CodedError,
  IntegrityError,
  InvalidInputError,
  NotFoundError,
  SourceError,
} from "@p2p-mirror/shared";
import type { PathKind } from "./distribution-path.ts";

/** Codes of the OCI distribution spec 1.1 ("Error Codes") in use here, and distribution's `RANGE_INVALID` and `UNKNOWN`. */
export type OciCode =
  | "BLOB_UNKNOWN"
  | "MANIFEST_UNKNOWN"
  | "NAME_UNKNOWN"
  | "NAME_INVALID"
  | "DIGEST_INVALID"
  | "RANGE_INVALID"
  | "UNSUPPORTED"
  | "UNKNOWN";

/**
 * Statuses that may leave this endpoint. 429 and 408 are not among them: containerd repeats such a request five times
 * at once before it asks the next host (measured with 1.6, 1.7 and 2.1).
 */
export type OciStatus = 400 | 404 | 405 | 414 | 416 | 431 | 500;

/** An answer in the error form of the spec. The message is for the client: never a credential, never a stack. */
export class OciError extends CodedError {
  override readonly name = "OciError";
  readonly status: OciStatus;
  readonly code: OciCode;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: OciStatus,
    code: OciCode,
    message: string,
    options: ErrorOptions & { headers?: Readonly<Record<string, string>> } = {},
  ) {
    super(message, options);
    this.status = status;
    this.code = code;
    this.headers = options.headers ?? {};
  }

  body(): string {
    return JSON.stringify({ errors: [{ code: this.code, message: this.message }] });
  }
}

const UNKNOWN_CODES = {
  base: "NAME_UNKNOWN",
  tag: "MANIFEST_UNKNOWN",
  manifest: "MANIFEST_UNKNOWN",
  blob: "BLOB_UNKNOWN",
  tags: "NAME_UNKNOWN",
  referrers: "MANIFEST_UNKNOWN",
} as const satisfies Record<PathKind, NotFoundError["code"]>;

/** The code that says "not here" for this kind of object. */
export const unknownCode = (kind: PathKind | undefined): NotFoundError["code"] =>
  kind === undefined ? "NAME_UNKNOWN" : UNKNOWN_CODES[kind];

/**
 * What any failure before the headers is to the client. "Not here, ask the next host" (404) is the answer whenever the
 * sources are to blame: containerd then goes on at once, and nothing it could do with a finer status is better.
 * `undefined` for an error nobody foresaw: the caller logs it and answers 500, which also sends containerd on.
 */
export function toOciError(error: unknown, kind: PathKind | undefined): OciError | undefined {
  if (error instanceof OciError) return error;
  if (error instanceof NotFoundError) return new OciError(404, error.code, error.message, { cause: error });
  if (
    error instanceof SourceError ||
    error instanceof AllSourcesFailedError ||
    error instanceof IntegrityError
  ) {
    return new OciError(404, unknownCode(kind), "no source can deliver it now", { cause: error });
  }
  if (error instanceof InvalidInputError) return fromInvalidInput(error, kind);
  return undefined;
}

function fromInvalidInput(error: InvalidInputError, kind: PathKind | undefined): OciError {
  const { code, message } = error;
  // No repository can have such a tag, so it is unknown; the distribution conformance suite expects 404 here.
  if (code === "TAG_INVALID") return new OciError(404, "MANIFEST_UNKNOWN", message, { cause: error });
  // Only a source can have given it.
  if (code === "MANIFEST_INVALID") {
    return new OciError(404, unknownCode(kind), "the manifest at its source is not valid", { cause: error });
  }
  return new OciError(code === "RANGE_INVALID" ? 416 : 400, code, message, { cause: error });
}

export const internalError = (requestId: string): OciError =>
  new OciError(500, "UNKNOWN", `internal error, request ${requestId}`);
