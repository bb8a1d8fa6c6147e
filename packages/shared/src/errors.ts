import { hideUrlSecrets } from "./url-secrets.ts";

/**
 * The errors of the project: one class per family, a literal `code`, the data as fields, the reason as `cause`.
 * Which of them becomes which OCI error is decided in one place, `p2p-mirror/src/http/oci-errors.ts`.
 */
export abstract class CodedError extends Error {
  abstract readonly code: string;
}

/** What a client, a peer or a file said cannot be read. The value is cut by whoever throws, so that logs stay small. */
export class InvalidInputError extends CodedError {
  override readonly name = "InvalidInputError";
  readonly code: "DIGEST_INVALID" | "NAME_INVALID" | "TAG_INVALID" | "RANGE_INVALID" | "MANIFEST_INVALID";
  readonly field: string;
  readonly value: string;

  constructor(code: InvalidInputError["code"], field: string, value: string, options?: ErrorOptions) {
    super(`${field} "${value}" is not valid`, options);
    this.code = code;
    this.field = field;
    this.value = value;
  }
}

/** No source has the object, and none will have it soon: the clean decline (404), so that containerd asks the next host. */
export class NotFoundError extends CodedError {
  override readonly name = "NotFoundError";
  readonly code: "BLOB_UNKNOWN" | "MANIFEST_UNKNOWN" | "NAME_UNKNOWN";

  constructor(code: NotFoundError["code"], what: string, options?: ErrorOptions) {
    super(`${what} was not found`, options);
    this.code = code;
  }
}

/** Bytes that are not what their digest or their announced size says. `source` names who delivered them. */
export class IntegrityError extends CodedError {
  override readonly name = "IntegrityError";
  readonly code: "DIGEST_MISMATCH" | "SIZE_MISMATCH";
  readonly expected: string;
  readonly found: string;
  readonly source: string;

  constructor(code: IntegrityError["code"], expected: string, found: string, source: string) {
    super(`${source} delivered ${found} instead of ${expected}`);
    this.code = code;
    this.expected = expected;
    this.found = found;
    this.source = source;
  }
}

/** A source (upstream, a peer, containerd) did not do its part. `temporary`: the same request may work later. */
export class SourceError extends CodedError {
  override readonly name = "SourceError";
  readonly code:
    | "UNREACHABLE" /* no connection, TLS or name failure */
    | "NO_FIRST_BYTE" /* connected, but silent past the deadline */
    | "STALLED" /* bytes stopped coming */
    | "CUT" /* the body ended early */
    | "BUSY" /* a peer without a free upload slot; nobody's fault */
    | "STATUS" /* an answer that is no answer to this request */
    | "DENIED" /* 401 or 403 */
    | "RATE_LIMITED"; /* 429 */
  readonly source: string;
  readonly status: number | undefined;
  /** Milliseconds the source asked us to wait (Retry-After). */
  readonly retryAfterMs: number | undefined;

  constructor(
    code: SourceError["code"],
    source: string,
    detail: {
      message?: string;
      status?: number | undefined;
      retryAfterMs?: number | undefined;
      cause?: unknown;
    } = {},
  ) {
    super(`${source}: ${detail.message ?? code.toLowerCase().replaceAll("_", " ")}`, { cause: detail.cause });
    this.code = code;
    this.source = source;
    this.status = detail.status;
    this.retryAfterMs = detail.retryAfterMs;
  }

  get temporary(): boolean {
    if (this.code === "STATUS") return this.status !== undefined && this.status >= 500;
    return this.code !== "DENIED";
  }
}

/** Every source was tried and failed; `errors` holds one per source. */
export class AllSourcesFailedError extends AggregateError {
  override readonly name = "AllSourcesFailedError";
  readonly code = "ALL_SOURCES_FAILED";

  constructor(what: string, errors: readonly unknown[]) {
    super([...errors], `no source delivered ${what}`);
  }
}

/**
 * A wrong flag, environment variable or config field: printed as one line, exit code 2. `value` is what was given, without
 * logins and queries of URLs.
 */
export class ConfigError extends CodedError {
  override readonly name = "ConfigError";
  readonly code = "CONFIG_INVALID";
  readonly field: string;
  readonly value: string;
  readonly fix: string;

  constructor(field: string, value: string, fix: string, options?: ErrorOptions) {
    const shown = hideUrlSecrets(value);
    super(`${field}: ${JSON.stringify(shown)} is not valid: ${fix}`, options);
    this.field = field;
    this.value = shown;
    this.fix = fix;
  }
}
