import { SingleFlight, type Repository } from "@p2p-mirror/shared";
import { LRUCache } from "lru-cache";
import { parseChallenges, type Challenge } from "./challenge.ts";
import type { CredentialStore } from "./credentials.ts";
import type { Credentials } from "./docker-config.ts";
import type { UpstreamMetrics } from "./metrics.ts";
import { isSafeForLogins, type Endpoint } from "./registry-config.ts";
import { basicHeader, fetchToken, type Token, type TokenChallenge } from "./tokens.ts";
import type { Transport } from "./transport.ts";

/** What goes into a request's Authorization header; `anonymous`: nobody's login is behind it. */
export interface Authorization {
  readonly header: string;
  readonly anonymous: boolean;
}

/** How a registry wants to be asked for a repository, as its last challenge said. */
type Scheme =
  | { readonly kind: "basic" }
  | { readonly kind: "bearer"; readonly challenge: TokenChallenge; token?: Token & { anonymous: boolean } };

const MAX_REALM = 2048;

export interface AuthorizerDeps {
  readonly transport: Transport;
  readonly credentials: CredentialStore;
  readonly metrics: UpstreamMetrics;
}

/**
 * Answers challenges, and remembers the answer per host, repository and whether it was asked without a login: the
 * next request carries its token at once, and gets a new one by itself when that has expired.
 */
export class Authorizer {
  readonly #deps: AuthorizerDeps;
  readonly #schemes = new LRUCache<string, Scheme>({ max: 2000 });
  readonly #flights = new SingleFlight<Token & { anonymous: boolean }>();

  constructor(deps: AuthorizerDeps) {
    this.#deps = deps;
  }

  /** What to send with a request before any challenge; undefined: nothing is known yet. */
  async before(
    endpoint: Endpoint,
    repository: Repository,
    signal?: AbortSignal,
  ): Promise<Authorization | undefined> {
    const scheme = this.#schemes.get(keyOf(endpoint, repository));
    return scheme === undefined ? undefined : this.#authorization(endpoint, repository, scheme, signal);
  }

  /**
   * What to send after a 401 to a request that carried `used`. Undefined: nothing this node has would help.
   * @throws SourceError from the token server
   */
  async after(
    endpoint: Endpoint,
    repository: Repository,
    headers: readonly string[],
    used: Authorization | undefined,
    signal?: AbortSignal,
  ): Promise<Authorization | undefined> {
    const key = keyOf(endpoint, repository);
    const scheme = this.#choose(endpoint, repository, parseChallenges(headers));
    if (scheme === undefined) {
      this.#schemes.delete(key);
      return undefined;
    }
    const known = this.#schemes.get(key);
    // Somebody else may have got a new token while this request was on its way with the old one.
    if (scheme.kind === "bearer" && known?.kind === "bearer" && known.token !== undefined) {
      if (used === undefined || used.header !== `Bearer ${known.token.value}`) scheme.token = known.token;
    }
    this.#schemes.set(key, scheme);
    const next = await this.#authorization(endpoint, repository, scheme, signal);
    return next?.header === used?.header ? undefined : next;
  }

  #choose(endpoint: Endpoint, repository: Repository, challenges: readonly Challenge[]): Scheme | undefined {
    for (const { scheme, params } of challenges) {
      if (scheme !== "bearer") continue;
      const realm = readRealm(params.get("realm"), endpoint);
      if (realm === undefined) continue;
      const scope = params.get("scope") ?? `repository:${repository.repository}:pull`;
      return { kind: "bearer", challenge: { realm, service: params.get("service"), scope } };
    }
    const basic = challenges.some((challenge) => challenge.scheme === "basic");
    return basic && !endpoint.anonymous ? { kind: "basic" } : undefined;
  }

  async #authorization(
    endpoint: Endpoint,
    repository: Repository,
    scheme: Scheme,
    signal: AbortSignal | undefined,
  ): Promise<Authorization | undefined> {
    if (scheme.kind === "basic") {
      const credentials = await this.#credentials(endpoint, repository, new URL(endpoint.origin));
      const header = credentials === undefined ? undefined : basicHeader(credentials);
      return header === undefined ? undefined : { header, anonymous: false };
    }
    let { token } = scheme;
    if (token === undefined || token.expires <= performance.now()) {
      const key = keyOf(endpoint, repository);
      const { challenge } = scheme;
      const flight = `${key} ${challenge.realm.href} ${challenge.service ?? ""} ${challenge.scope}`;
      token = await this.#flights.run(
        flight,
        async () => {
          try {
            const credentials = await this.#credentials(endpoint, repository, challenge.realm);
            const fetched = await fetchToken(endpoint, challenge, credentials, this.#deps);
            return { ...fetched, anonymous: credentials === undefined };
          } catch (error) {
            // The token server may have moved: the next request is to be challenged again.
            if (this.#schemes.get(key) === scheme) this.#schemes.delete(key);
            throw error;
          }
        },
        signal,
      );
      scheme.token = token;
    }
    return { header: `Bearer ${token.value}`, anonymous: token.anonymous };
  }

  /** @param to where they are about to be sent */
  async #credentials(
    endpoint: Endpoint,
    { repository }: Repository,
    to: URL,
  ): Promise<Credentials | undefined> {
    if (endpoint.anonymous || !isSafeForLogins(to)) return undefined;
    return this.#deps.credentials.for({ registry: endpoint.loginAs, repository });
  }
}

const keyOf = (endpoint: Endpoint, { repository }: Repository): string =>
  `${endpoint.id} ${repository} ${endpoint.anonymous}`;

/** A token server that may be asked: https, unless the registry itself is not. */
function readRealm(text: string | undefined, endpoint: Endpoint): URL | undefined {
  if (text === undefined || text.length > MAX_REALM || !URL.canParse(text)) return undefined;
  const url = new URL(text);
  const fits = url.protocol === "https:" || (url.protocol === "http:" && !endpoint.secure);
  return fits && url.username === "" && url.password === "" ? url : undefined;
}
