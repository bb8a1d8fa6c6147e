import { codeOf, SourceError } from "@p2p-mirror/shared";
import { errors } from "undici";

/** Names that do not exist and certificates that do not fit will not be better in a moment. */
export function isPermanent(error: unknown): boolean {
  const code = codeOf(error);
  return (
    code === "ENOTFOUND" ||
    code === "ERR_TLS_CERT_ALTNAME_INVALID" ||
    code === "UND_ERR_PRX_TLS" ||
    code.includes("CERT") ||
    code === "UNABLE_TO_VERIFY_LEAF_SIGNATURE"
  );
}

/** What went wrong before the headers of the answer. */
export function connectError(source: string, error: unknown): SourceError {
  const code = error instanceof errors.HeadersTimeoutError ? "NO_FIRST_BYTE" : "UNREACHABLE";
  return new SourceError(code, source, { message: reason(error), cause: error });
}

/** What went wrong in the body. */
export function bodyError(source: string, error: unknown): SourceError {
  const code = error instanceof errors.BodyTimeoutError ? "STALLED" : "CUT";
  return new SourceError(code, source, { message: reason(error), cause: error });
}

/** The code is enough for a log line and holds nothing that upstream could have put there. */
export const reason = (error: unknown): string =>
  codeOf(error) || (error instanceof Error ? error.name : "failed");
