import {
  hideUrlSecrets,
  isKnownByConfig,
  linkSignal,
  SourceError,
  type Logger,
  type Repository,
} from "@p2p-mirror/shared";
import pRetry from "p-retry";
import { failureOf } from "./answers.ts";
import type { Authorization, Authorizer } from "./authorizer.ts";
import type { CredentialStore } from "./credentials.ts";
import { follow, type Followed, type FollowRequest } from "./follow.ts";
import { heedLimits } from "./limits.ts";
import type { UpstreamMetrics } from "./metrics.ts";
import { RedirectMemory } from "./redirects.ts";
import { objectUrl, type Endpoint } from "./registry-config.ts";
import { isPermanent } from "./transport-errors.ts";
import { discard, headersOf, type RequestKind, type Transport, type WireAnswer } from "./transport.ts";

export interface ObjectRequest {
  readonly kind: RequestKind;
  readonly method: "GET" | "HEAD";
  readonly repository: Repository;
  /** Below the repository: `manifests/v1`. */
  readonly rest: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  /** Remember where this is redirected to, and go there at once the next time. */
  readonly rememberRedirect?: boolean;
  /** Statuses besides 2xx that the caller wants to see. */
  readonly accept?: readonly number[];
  readonly signal: AbortSignal | undefined;
}

export interface ObjectAnswer extends WireAnswer {
  /** Nothing in the request told the registry who asks. */
  readonly anonymous: boolean;
}

export interface RetryOptions {
  /** Besides the first try. */
  readonly retries: number;
  /** Milliseconds before the first of them, at least; up to twice as long at random, three times as long each time. */
  readonly delayMs: number;
  /** Milliseconds after the start of the first try in which another may begin. */
  readonly withinMs: number;
}

export interface ObjectClientDeps {
  readonly transport: Transport;
  readonly authorizer: Authorizer;
  readonly credentials: CredentialStore;
  readonly metrics: UpstreamMetrics;
  readonly logger: Logger;
}

/** Requests for objects of a registry: authorised, redirected, tried again, and failed with the port's errors. */
export class ObjectClient {
  readonly #options: { readonly retry: RetryOptions };
  readonly #deps: ObjectClientDeps;
  readonly #redirects = new RedirectMemory();
  readonly #closing = new AbortController();

  constructor(options: { readonly retry: RetryOptions }, deps: ObjectClientDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  close(): void {
    this.#closing.abort(new DOMException("the mirror is closing", "AbortError"));
  }

  /**
   * Sends the request and gives the answer to `consume`, whose failures count as the request's: what breaks in there is
   * tried again too, so it must not have handed anything on.
   */
  async run<T>(
    endpoint: Endpoint,
    request: ObjectRequest,
    consume: (answer: ObjectAnswer) => Promise<T> | T,
  ): Promise<T> {
    const registry = this.#deps.metrics.label(endpoint.registry);
    const { retries, delayMs, withinMs } = this.#options.retry;
    const linked = linkSignal([request.signal, this.#closing.signal]);
    try {
      return await pRetry(async () => consume(await this.#once(endpoint, request)), {
        retries: endpoint.spare ? 0 : retries,
        minTimeout: delayMs,
        factor: 3,
        randomize: true,
        maxRetryTime: withinMs,
        signal: linked.signal,
        shouldRetry: ({ error }) => isRetriable(error),
        onFailedAttempt: ({ error, retryDelay }) => {
          if (retryDelay > 0 && isRetriable(error)) this.#deps.metrics.retries.inc({ registry });
        },
      });
    } catch (error) {
      if (error instanceof SourceError) {
        this.#deps.metrics.errors.inc({ registry, code: error.code });
        this.#deps.logger.debug(
          { registry: endpoint.registry, what: request.rest, code: error.code, status: error.status },
          "upstream request failed",
        );
      }
      throw error;
    } finally {
      // A body that goes on is bound to the caller's own signal by the transport.
      linked.release();
    }
  }

  async #once(endpoint: Endpoint, request: ObjectRequest): Promise<ObjectAnswer> {
    const wanted = (status: number): boolean =>
      (status >= 200 && status < 300) || request.accept?.includes(status) === true;
    const remembered = await this.#fromRemembered(endpoint, request);
    if (remembered !== undefined) return remembered;
    const { followed, authorization } = await this.#authorized(endpoint, request);
    const { answer, fromRegistry, left } = followed;
    const retryAfterMs = fromRegistry ? heedLimits(endpoint, answer, this.#deps) : undefined;
    if (!wanted(answer.status)) {
      const what = `${endpoint.registry}/${request.repository.repository}/${request.rest}`;
      const failure = await failureOf({ ...request, what }, answer, fromRegistry, retryAfterMs);
      if (failure instanceof SourceError && failure.code === "DENIED") {
        this.#deps.credentials.refused(endpoint.loginAs);
      }
      throw failure;
    }
    if (request.rememberRedirect === true && left !== undefined) {
      this.#redirects.remember(redirectKey(endpoint, request), left.target, left.serverNow);
    }
    const anonymous = authorization?.anonymous !== false && !isKnownByConfig(endpoint.config);
    return { ...answer, anonymous };
  }

  /** The answer of where this was redirected to before. Whatever it is but bytes, the registry is asked again. */
  async #fromRemembered(endpoint: Endpoint, request: ObjectRequest): Promise<ObjectAnswer | undefined> {
    if (request.rememberRedirect !== true) return undefined;
    const key = redirectKey(endpoint, request);
    const target = this.#redirects.get(key);
    if (target === undefined) return undefined;
    try {
      const { answer } = await follow(this.#deps.transport, endpoint, target, wire(request, undefined));
      if (answer.status === 200 || answer.status === 206) return { ...answer, anonymous: false };
      discard(answer);
      this.#deps.logger.debug(
        { registry: endpoint.registry, target: hideUrlSecrets(target.href), status: answer.status },
        "a remembered redirect is of no use any more",
      );
    } catch (error) {
      if (!(error instanceof SourceError)) throw error;
    }
    this.#redirects.forget(key);
    return undefined;
  }

  async #authorized(
    endpoint: Endpoint,
    request: ObjectRequest,
  ): Promise<{ followed: Followed; authorization: Authorization | undefined }> {
    const { transport, authorizer } = this.#deps;
    const { repository, signal } = request;
    const url = objectUrl(endpoint, repository, request.rest, request.query);
    const first = await authorizer.before(endpoint, repository, signal);
    const followed = await follow(transport, endpoint, url, wire(request, first));
    if (followed.answer.status !== 401 || !followed.fromRegistry) return { followed, authorization: first };
    const challenges = headersOf(followed.answer, "www-authenticate");
    let second: Authorization | undefined;
    try {
      second = await authorizer.after(endpoint, repository, challenges, first, signal);
    } catch (error) {
      discard(followed.answer);
      throw error;
    }
    if (second === undefined) return { followed, authorization: first };
    discard(followed.answer);
    return { followed: await follow(transport, endpoint, url, wire(request, second)), authorization: second };
  }
}

const redirectKey = (endpoint: Endpoint, request: ObjectRequest): string =>
  `${endpoint.id} ${request.repository.repository} ${request.rest}`;

const wire = (request: ObjectRequest, authorization: Authorization | undefined): FollowRequest => ({
  kind: request.kind,
  method: request.method,
  headers: request.headers ?? {},
  signal: request.signal,
  authorization: authorization?.header,
});

/** Only what may be different a moment later, and has not cost its deadline. */
function isRetriable(error: unknown): boolean {
  if (!(error instanceof SourceError)) return false;
  // Without a cause it is the breaker that speaks.
  if (error.code === "UNREACHABLE") return error.cause !== undefined && !isPermanent(error.cause);
  if (error.code === "CUT") return true;
  return (
    error.code === "STATUS" &&
    error.retryAfterMs === undefined &&
    [500, 502, 503, 504].includes(error.status ?? 0)
  );
}
