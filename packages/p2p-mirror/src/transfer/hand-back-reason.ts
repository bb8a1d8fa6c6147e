import { NotFoundError, SourceError } from "@p2p-mirror/shared";
import type { HandBackReason } from "../swarm/swarm.ts";
import type { Candidates } from "./candidates.ts";

/** What to tell the swarm of a lease for which there is no upstream to ask: it has refused, or only rests. */
export function reasonWithout({ upstreamRests }: Pick<Candidates, "upstreamRests">): HandBackReason {
  return upstreamRests ? { kind: "failed" } : { kind: "unauthorized" };
}

/** What to tell the swarm when upstream, asked for what this node was to bring, has failed. */
export function handBackReason(error: unknown): HandBackReason {
  if (error instanceof NotFoundError) return { kind: "unauthorized" };
  if (!(error instanceof SourceError)) return { kind: "failed" };
  if (error.code === "DENIED") return { kind: "unauthorized" };
  return error.retryAfterMs === undefined
    ? { kind: "failed" }
    : { kind: "rate-limited", retryAfterMs: error.retryAfterMs };
}
