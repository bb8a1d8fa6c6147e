import {
  AllSourcesFailedError,
  IntegrityError,
  InvalidInputError,
  NotFoundError,
  SourceError,
  type Logger,
} from "@p2p-mirror/shared";
import { LRUCache } from "lru-cache";
import { Draining, subjectOf, type Exchange } from "./exchange.ts";
import { OciError } from "./oci-errors.ts";

/** Why a request was declined: a label of the requests metric, so a closed set. Of a SourceError it is the code. */
export type DeclineReason =
  | "none"
  | "not_public" /* access: not known to be given to anybody */
  | "not_found"
  | "sources_failed"
  | "canary" /* the doctor's, which has arrived and need not go on */
  | "loop" /* asked by a mirror that has this one among somebody's hosts */
  | "cut_memory" /* a resume of what was cut just before */
  | "closing"
  | "integrity"
  | "invalid"
  | "internal"
  | Lowercase<SourceError["code"]>;

const SOURCE_REASONS = {
  UNREACHABLE: "unreachable",
  NO_FIRST_BYTE: "no_first_byte",
  STALLED: "stalled",
  CUT: "cut",
  BUSY: "busy",
  STATUS: "status",
  DENIED: "denied",
  RATE_LIMITED: "rate_limited",
} as const satisfies Record<SourceError["code"], DeclineReason>;

export function declineReasonOf(error: unknown): DeclineReason {
  if (error instanceof Draining) return "closing";
  if (error instanceof NotFoundError) return "not_found";
  if (error instanceof AllSourcesFailedError) return "sources_failed";
  if (error instanceof SourceError) return SOURCE_REASONS[error.code];
  if (error instanceof IntegrityError) return "integrity";
  return error instanceof InvalidInputError || error instanceof OciError ? "invalid" : "internal";
}

const QUIET_MS = 60_000;
const MAX_SUBJECTS = 2_000;

/** Says why something is declined, at info, once a minute for a repository and a reason: that is when upstream is asked. */
export class DeclineLog {
  readonly #logger: Logger;
  readonly #said = new LRUCache<string, true>({ max: MAX_SUBJECTS, ttl: QUIET_MS });

  constructor(logger: Logger) {
    this.#logger = logger;
  }

  declined(exchange: Exchange, error: unknown): void {
    const { path, reason } = exchange;
    // A request nobody could serve is its client's matter, and a fault of ours has its own line.
    if (path === undefined || path.kind === "base" || reason === "invalid" || reason === "internal") return;
    const subject = `${path.registry}/${path.repository} ${reason}`;
    if (this.#said.has(subject)) return;
    this.#said.set(subject, true);
    this.#logger.info(
      { requestId: exchange.id, kind: path.kind, ...subjectOf(path), reason, err: error },
      "declined: the client asks its next host",
    );
  }
}
