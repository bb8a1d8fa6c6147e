import { performance } from "node:perf_hooks";
import { SourceError } from "@p2p-mirror/shared";
import type { Permit } from "./breaker.ts";
import type { ExchangeHooks, Head } from "./exchange.ts";
import type { FetchedOutcome, PeerMetrics } from "./metrics.ts";
import type { BodyEnd } from "./peer-body.ts";
import { judge, type PeerQuestion, type Verdict } from "./verdict.ts";

const OUTCOME_OF_CODE = {
  UNREACHABLE: "unreachable",
  NO_FIRST_BYTE: "no-first-byte",
  STALLED: "stalled",
  CUT: "cut",
  BUSY: "busy",
  STATUS: "status",
  DENIED: "status",
  RATE_LIMITED: "status",
} as const satisfies Record<SourceError["code"], FetchedOutcome>;

/** Without a byte for so long a peer was silent, though its caller did not wait for the deadline (a flight goes on after 2 s). */
const SILENT_MS = 1_500;

/** One request's account: what its outcome tells the peer's breaker and the metrics, once. */
export class Trial implements ExchangeHooks {
  readonly #peer: string;
  readonly #question: PeerQuestion;
  readonly #permit: Permit;
  readonly #metrics: PeerMetrics;
  #verdict: Verdict | undefined;
  #settled = false;
  #sentAt = Infinity;
  #bytes = 0;

  constructor(peer: string, question: PeerQuestion, deps: { permit: Permit; metrics: PeerMetrics }) {
    this.#peer = peer;
    this.#question = question;
    this.#permit = deps.permit;
    this.#metrics = deps.metrics;
  }

  /** Of the head, once there is one. */
  get verdict(): Verdict {
    if (this.#verdict === undefined) throw new Error("there is no answer yet");
    return this.#verdict;
  }

  onSent = (): void => void (this.#sentAt = performance.now());

  onHead = (head: Head, seconds: number): void => {
    this.#metrics.firstByte.observe(seconds);
    this.#permit.alive();
    this.#verdict = judge(this.#peer, this.#question, head);
    if (this.#verdict.kind === "fine") return;
    if (this.#verdict.kind === "wrong") this.#permit.failed();
    this.#settle(this.#verdict.kind === "wrong" ? "status" : this.#verdict.kind);
  };

  onBytes = (bytes: number): void => {
    this.#bytes += bytes;
    if (this.#question.kind === "blob" || this.#question.kind === "piece")
      this.#metrics.receivedBytes.inc(bytes);
  };

  onEnd = (end: BodyEnd): void => {
    if (this.#settled) return;
    if (end === "complete") this.#permit.served(this.#bytes);
    else if (end !== "left") this.#permit.failed();
    if (end === "stalled") this.#permit.silent();
    this.#settle(end === "left" ? "aborted" : end);
  };

  /** The caller aborted before there was an answer. */
  abandoned(): void {
    if (performance.now() - this.#sentAt >= SILENT_MS) this.#permit.silent();
    this.#settle("aborted");
  }

  failedBeforeHead(error: unknown): void {
    if (!(error instanceof SourceError)) return this.#settle("aborted");
    // A dial that took all its time has no other cause than that.
    if (error.code === "UNREACHABLE" && error.cause === undefined) this.#permit.dead();
    else if (error.code === "UNREACHABLE") this.#permit.refused();
    else if (error.code !== "BUSY") this.#permit.failed();
    if (error.code === "NO_FIRST_BYTE") this.#permit.silent();
    this.#settle(OUTCOME_OF_CODE[error.code]);
  }

  #settle(outcome: FetchedOutcome): void {
    this.#settled = true;
    this.#permit.release();
    this.#metrics.fetched.inc({ kind: this.#question.kind, outcome });
  }
}
