import { SourceError } from "@p2p-mirror/shared";
import { readBounded } from "./body.ts";
import type { Credentials } from "./docker-config.ts";
import { heedLimits } from "./limits.ts";
import type { UpstreamMetrics } from "./metrics.ts";
import type { Endpoint } from "./registry-config.ts";
import { discard, type Transport, type WireAnswer } from "./transport.ts";

/** Where and for what a token is to be had: a Bearer challenge, read. */
export interface TokenChallenge {
  readonly realm: URL;
  readonly service: string | undefined;
  readonly scope: string;
}

export interface Token {
  readonly value: string;
  /** On the clock of `performance.now()`. */
  readonly expires: number;
}

const MAX_ANSWER_BYTES = 128 * 1024;
const MAX_TOKEN = 32 * 1024;
/** The token specification: without `expires_in` a token lives 60 s, and no server should give less. */
const DEFAULT_LIFE_S = 60;
const MAX_LIFE_S = 12 * 60 * 60;
/** Part of its life a token is used for. */
const USABLE_LIFE = 0.9;

const basic = (username: string, password: string): string =>
  `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}`;

export const basicHeader = (credentials: Credentials): string | undefined =>
  credentials.kind === "basic" ? basic(credentials.username, credentials.password) : undefined;

/**
 * Gets a token as the distribution project's token specification has it: GET, with Basic when there is a login; POST of
 * the refresh token when that is what `docker login` left. Redirects are not followed: the request may hold a login.
 * @throws SourceError: `DENIED` when the login is refused or anonymous clients are
 */
export async function fetchToken(
  endpoint: Endpoint,
  challenge: TokenChallenge,
  credentials: Credentials | undefined,
  deps: { readonly transport: Transport; readonly metrics: UpstreamMetrics },
): Promise<Token> {
  const registry = deps.metrics.label(endpoint.registry);
  const answer = await ask(endpoint, challenge, credentials, deps.transport);
  const retryAfterMs = heedLimits(endpoint, answer, deps);
  if (answer.status !== 200) {
    discard(answer);
    deps.metrics.tokens.inc({ registry, outcome: String(answer.status) });
    throw refusal(endpoint, answer.status, retryAfterMs);
  }
  const text = (await readBounded(answer.body, MAX_ANSWER_BYTES, endpoint.registry)).toString("utf8");
  const token = readToken(text);
  deps.metrics.tokens.inc({ registry, outcome: token === undefined ? "malformed" : "200" });
  if (token === undefined) {
    throw new SourceError("STATUS", endpoint.registry, {
      message: "the token server gave no token",
      status: 200,
    });
  }
  return token;
}

function ask(
  endpoint: Endpoint,
  { realm, service, scope }: TokenChallenge,
  credentials: Credentials | undefined,
  transport: Transport,
): Promise<WireAnswer> {
  const headers: Record<string, string> = { accept: "application/json" };
  const params = new URLSearchParams();
  if (service !== undefined) params.set("service", service);
  params.set("scope", scope);
  if (credentials?.kind === "identity") {
    params.set("grant_type", "refresh_token");
    params.set("client_id", "p2p-mirror");
    params.set("refresh_token", credentials.token);
    headers["content-type"] = "application/x-www-form-urlencoded";
    const body = params.toString();
    return transport.send(endpoint, realm, {
      kind: "token",
      method: "POST",
      headers,
      body,
      signal: undefined,
    });
  }
  const url = new URL(realm);
  for (const [name, value] of params) url.searchParams.set(name, value);
  const authorization = credentials === undefined ? undefined : basicHeader(credentials);
  if (authorization !== undefined) headers["authorization"] = authorization;
  return transport.send(endpoint, url, { kind: "token", method: "GET", headers, signal: undefined });
}

function refusal(endpoint: Endpoint, status: number, retryAfterMs: number | undefined): SourceError {
  const code = status === 401 || status === 403 ? "DENIED" : status === 429 ? "RATE_LIMITED" : "STATUS";
  const message = `the token server answered ${status}`;
  return new SourceError(code, endpoint.registry, { message, status, retryAfterMs });
}

function readToken(text: string): Token | undefined {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof json !== "object" || json === null) return undefined;
  const fields = new Map<string, unknown>(Object.entries(json));
  const value = [fields.get("token"), fields.get("access_token")].find(
    (one) => typeof one === "string" && one !== "",
  );
  // What could end the header line must not get into it.
  if (typeof value !== "string" || value.length > MAX_TOKEN || !/^[\x21-\x7e]+$/.test(value))
    return undefined;
  const said = fields.get("expires_in");
  const seconds = typeof said === "number" && said > 0 ? Math.min(said, MAX_LIFE_S) : DEFAULT_LIFE_S;
  return { value, expires: performance.now() + seconds * 1000 * USABLE_LIFE };
}
