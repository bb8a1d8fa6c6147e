import type { IncomingMessage } from "node:http";
import { cameFromMirror, NotFoundError, raceSignal, type Logger } from "@p2p-mirror/shared";
import type { Access, AccessRequest } from "../transfer/access.ts";
import type { Content } from "../transfer/content.ts";
import type { Answer } from "./answer.ts";
import { Arrivals } from "./arrivals.ts";
import { serveBlob, type BlobRequest } from "./blobs.ts";
import { CutMemory } from "./cut-memory.ts";
import { DeclineLog, declineReasonOf } from "./decline-reason.ts";
import { MAX_TARGET_LENGTH, parseDistributionPath, type DistributionPath } from "./distribution-path.ts";
import { Draining, subjectOf, type Exchange } from "./exchange.ts";
import { answerList } from "./lists.ts";
import { answerManifest, answerTag } from "./manifests.ts";
import type { HttpMetrics } from "./metrics.ts";
import { internalError, OciError, toOciError, unknownCode } from "./oci-errors.ts";

export interface RegistryHandlerOptions {
  readonly stallMs: number;
  readonly headersMs: number;
  readonly cutMemoryMs: number;
}

export interface RegistryHandlerDeps {
  readonly content: Content;
  readonly access: Access;
  readonly logger: Logger;
  readonly metrics: HttpMetrics;
}

type RepositoryPath = Exclude<DistributionPath, { kind: "base" }>;

/** From a request to its answer: parse, decide access, ask the content port, and name what went wrong. */
export class RegistryHandler {
  readonly #options: RegistryHandlerOptions;
  readonly #deps: RegistryHandlerDeps;
  readonly #cutMemory: CutMemory;
  readonly #declines: DeclineLog;
  readonly arrivals = new Arrivals();

  constructor(options: RegistryHandlerOptions, deps: RegistryHandlerDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#cutMemory = new CutMemory(options.cutMemoryMs);
    this.#declines = new DeclineLog(deps.logger);
  }

  /** Undefined when the answer was streamed. Throws only while nothing of an answer was sent. */
  async answer(
    exchange: Exchange,
    stream: Pick<BlobRequest, "takeOver" | "cut">,
  ): Promise<Answer | undefined> {
    const path = parseDistributionPath(exchange.request.url ?? "");
    exchange.path = path;
    if (path.kind === "base") return BASE;
    if (this.arrivals.note(path)) {
      exchange.reason = "canary";
      throw new NotFoundError(unknownCode(path.kind), "the canary");
    }
    if (cameFromMirror(exchange.request.headers.via)) {
      exchange.reason = "loop";
      throw new NotFoundError(unknownCode(path.kind), "what a mirror asks a mirror for");
    }
    await this.#admit(path, exchange);
    const { content } = this.#deps;
    const { stallMs, headersMs } = this.#options;
    if (path.kind === "tag") return answerTag(content, exchange, path, path.tag);
    if (path.kind === "manifest") return answerManifest(content, exchange, path, path.digest);
    if (path.kind !== "blob") return answerList(content, exchange, path);
    return serveBlob(
      { ...stream, stallMs, headersMs, exchange, repository: path, digest: path.digest },
      { ...this.#deps, cutMemory: this.#cutMemory },
    );
  }

  /** What a failure before the headers is to the client. Only an error nobody foresaw is logged as one. */
  failure(exchange: Exchange, error: unknown): Answer {
    const kind = exchange.path?.kind;
    if (exchange.reason === "none") exchange.reason = declineReasonOf(error);
    this.#declines.declined(exchange, error);
    const foreseen =
      error instanceof Draining
        ? new OciError(404, unknownCode(kind), "this mirror is closing")
        : toOciError(error, kind);
    if (foreseen === undefined) {
      this.#deps.logger.error(
        { requestId: exchange.id, ...subjectOf(exchange.path), err: error },
        "request failed",
      );
    }
    const answer = foreseen ?? internalError(exchange.id);
    return {
      status: answer.status,
      headers: { "content-type": "application/json", ...answer.headers },
      body: Buffer.from(answer.body()),
    };
  }

  /** The one place where access is decided, once per request. */
  async #admit(path: RepositoryPath, exchange: Exchange): Promise<void> {
    const { kind, registry, repository } = path;
    const { signal } = exchange;
    const { authorization } = exchange.request.headers;
    const request = { registry, repository, authorization, wants: wantedOf(path) };
    const decision = await raceSignal(this.#deps.access.decide(request, { signal }), signal);
    if (decision === "allow") return;
    exchange.reason = "not_public";
    throw new NotFoundError(unknownCode(kind), `${registry}/${repository}, as far as this client may see,`);
  }
}

function wantedOf(path: RepositoryPath): AccessRequest["wants"] {
  if (path.kind === "tag") return { manifest: path.tag };
  if (path.kind === "manifest") return { manifest: path.digest };
  return path.kind === "blob" ? { blob: path.digest } : undefined;
}

/** `/v2/`: yes, a registry. */
const BASE: Answer = {
  status: 200,
  headers: { "content-type": "application/json" },
  body: Buffer.from("{}"),
};

/** This registry only gives: other methods, and requests with a body, end here before anything of them is read. */
export function refuseWhatIsNoPull(request: IncomingMessage): void {
  const { method, url = "", headers } = request;
  if (url.length > MAX_TARGET_LENGTH) throw new OciError(414, "NAME_INVALID", "the URL is too long");
  if (method !== "GET" && method !== "HEAD") {
    throw new OciError(405, "UNSUPPORTED", "this registry mirror is read-only", {
      headers: { allow: "GET, HEAD" },
    });
  }
  if (hostsOf(request) !== 1 && request.httpVersion !== "1.0") {
    throw new OciError(400, "UNSUPPORTED", "a request names one host");
  }
  if (headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0) {
    throw new OciError(400, "UNSUPPORTED", "a pull has no request body");
  }
}

/** RFC 9112, 3.2: exactly one in each request of HTTP/1.1. */
const hostsOf = ({ rawHeaders }: IncomingMessage): number =>
  rawHeaders.filter((name, at) => at % 2 === 0 && name.toLowerCase() === "host").length;
