import { NotFoundError, SourceError } from "@p2p-mirror/shared";
import type { HandBackReason } from "../swarm/swarm.ts";

/** What to tell the swarm when upstream, asked for what this node was to bring, has failed. */
export function handBackReason(error: unknown): HandBackReason {
  if (error instanceof NotFoundError) return { kind: "unauthorized" };
  if (!(error instanceof SourceError)) return { kind: "failed" };
  if (error.code === "DENIED") return { kind: "unauthorized" };
  return error.retryAfterMs === undefined
    ? { kind: "failed" }
    : { kind: "rate-limited", retryAfterMs: error.retryAfterMs };
}
