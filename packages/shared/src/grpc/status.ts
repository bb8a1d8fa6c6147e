import { status } from "@grpc/grpc-js";
import { SourceError } from "../errors.ts";

/** The gRPC status codes this project tells apart. */
export const GrpcStatus = {
  cancelled: status.CANCELLED,
  deadlineExceeded: status.DEADLINE_EXCEEDED,
  notFound: status.NOT_FOUND,
  permissionDenied: status.PERMISSION_DENIED,
  outOfRange: status.OUT_OF_RANGE,
  unimplemented: status.UNIMPLEMENTED,
  unavailable: status.UNAVAILABLE,
  unauthenticated: status.UNAUTHENTICATED,
} as const;

/** The status of a failed call, or undefined for any other error. */
export function grpcStatusOf(error: unknown): number | undefined {
  if (error instanceof SourceError) return grpcStatusOf(error.cause);
  if (error instanceof Error && "code" in error && typeof error.code === "number") return error.code;
  return undefined;
}

/**
 * A failed call as SourceError with the gRPC error as cause: `UNREACHABLE` (no server, connection lost),
 * `NO_FIRST_BYTE` (deadline), `DENIED`, and `STATUS` for what the server itself answered.
 */
export function toSourceError(source: string, error: unknown, code?: SourceError["code"]): SourceError {
  if (error instanceof SourceError) return error;
  const details =
    error instanceof Error && "details" in error && typeof error.details === "string"
      ? error.details
      : undefined;
  const detail = { cause: error, ...(details === undefined ? {} : { message: details.slice(0, 300) }) };
  if (code !== undefined) return new SourceError(code, source, { cause: error });
  const found = grpcStatusOf(error);
  return new SourceError((found === undefined ? undefined : CODES.get(found)) ?? "STATUS", source, detail);
}

const CODES: ReadonlyMap<number, SourceError["code"]> = new Map([
  [GrpcStatus.unavailable, "UNREACHABLE"],
  [GrpcStatus.cancelled, "UNREACHABLE"],
  [GrpcStatus.deadlineExceeded, "NO_FIRST_BYTE"],
  [GrpcStatus.permissionDenied, "DENIED"],
  [GrpcStatus.unauthenticated, "DENIED"],
]);
