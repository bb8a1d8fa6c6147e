import { randomBytes } from "node:crypto";
import { text } from "node:stream/consumers";
import { send, sendError, type Exchange } from "./send.ts";

/** Who may do what. `users`: name to password. */
export type RegistryAuth =
  | { readonly kind: "none" }
  | { readonly kind: "basic"; readonly users: Readonly<Record<string, string>> }
  | {
      readonly kind: "token";
      readonly users?: Readonly<Record<string, string>>;
      /** Identity tokens (docker login with OAuth2): token to user name. */
      readonly identityTokens?: Readonly<Record<string, string>>;
      /** Repositories an anonymous token may pull from. Default: all. */
      readonly isPublic?: (repository: string) => boolean;
      /** Who refuses an anonymous pull of a private one: the token endpoint (GHCR) or the registry (Docker Hub). */
      readonly deniedBy?: "token" | "registry";
      /** Seconds; left out of the answer when undefined (the spec then says 60). */
      readonly expiresIn?: number;
      /** Where the challenge sends clients. Default: `/token` of this registry. */
      readonly realm?: string;
    };

interface Token {
  readonly user: string | undefined;
  readonly repository: string | undefined;
  readonly expires: number;
}

/** What a request wants, as a token scope names it. */
export interface WantedAccess {
  readonly repository: string | undefined;
  readonly action: "pull" | "push";
}

const SCOPE = /^repository:([^:]+):/;

function basicUser(header: string | undefined, users: Readonly<Record<string, string>>): string | undefined {
  if (header === undefined || !header.startsWith("Basic ")) return undefined;
  const [user = "", ...rest] = Buffer.from(header.slice(6), "base64").toString().split(":");
  return users[user] !== undefined && users[user] === rest.join(":") ? user : undefined;
}

/** Basic and token authentication, as the distribution project's token specification has them. */
export class Authenticator {
  readonly #auth: RegistryAuth;
  readonly #tokens = new Map<string, Token>();
  readonly #service = "oci-registry-of-the-rig";

  constructor(auth: RegistryAuth) {
    this.#auth = auth;
  }

  /** Takes back all tokens that were given: the next request with one is challenged again. */
  revokeAll(): void {
    this.#tokens.clear();
  }

  /** Answers the request with a challenge and returns false, or lets it through. */
  async admits(exchange: Exchange, wanted: WantedAccess, origin: string): Promise<boolean> {
    const auth = this.#auth;
    if (auth.kind === "none") return true;
    const header = exchange.request.headers.authorization;
    if (auth.kind === "basic") {
      if (basicUser(header, auth.users) !== undefined) return true;
      await sendError(exchange, 401, "UNAUTHORIZED", { "www-authenticate": `Basic realm="rig"` });
      return false;
    }
    const token = header?.startsWith("Bearer ") === true ? this.#tokens.get(header.slice(7)) : undefined;
    if (token !== undefined && token.expires > Date.now() && this.#allows(token, wanted)) return true;
    const scope =
      wanted.repository === undefined
        ? ""
        : `,scope="repository:${wanted.repository}:${wanted.action === "push" ? "pull,push" : "pull"}"`;
    await sendError(exchange, 401, "UNAUTHORIZED", {
      "www-authenticate": `Bearer realm="${auth.realm ?? `${origin}/token`}",service="${this.#service}"${scope}`,
    });
    return false;
  }

  #allows(token: Token, wanted: WantedAccess): boolean {
    if (this.#auth.kind !== "token") return false;
    if (wanted.repository === undefined) return true;
    if (token.repository !== wanted.repository) return false;
    if (token.user !== undefined) return true;
    return wanted.action === "pull" && (this.#auth.isPublic?.(wanted.repository) ?? true);
  }

  /** The token endpoint: GET with Basic or nothing, POST with an identity token. */
  async token(exchange: Exchange): Promise<void> {
    const auth = this.#auth;
    if (auth.kind !== "token") return sendError(exchange, 404, "UNSUPPORTED");
    const { request, url } = exchange;
    const form = request.method === "POST" ? new URLSearchParams(await text(request)) : url.searchParams;
    const repository = SCOPE.exec(form.get("scope") ?? "")?.[1];
    let user: string | undefined;
    if (request.method === "POST") {
      user = auth.identityTokens?.[form.get("refresh_token") ?? ""];
      if (form.get("grant_type") !== "refresh_token" || user === undefined) {
        return sendError(exchange, 401, "UNAUTHORIZED");
      }
    } else if (request.headers.authorization !== undefined) {
      user = basicUser(request.headers.authorization, auth.users ?? {});
      if (user === undefined) return sendError(exchange, 401, "UNAUTHORIZED");
    }
    const isPublic = repository === undefined || (auth.isPublic?.(repository) ?? true);
    if (user === undefined && !isPublic && auth.deniedBy === "token") {
      return sendError(exchange, 403, "DENIED");
    }
    const token = randomBytes(24).toString("base64url");
    const seconds = auth.expiresIn ?? 60;
    this.#tokens.set(token, { user, repository, expires: Date.now() + seconds * 1000 });
    await send(exchange, {
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        ...(request.method === "POST" ? { access_token: token } : { token }),
        ...(auth.expiresIn === undefined ? {} : { expires_in: auth.expiresIn }),
        issued_at: new Date().toISOString(),
      }),
    });
  }
}
