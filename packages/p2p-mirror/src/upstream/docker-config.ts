import { DOCKER_HUB, type Repository } from "@p2p-mirror/shared";

export type Credentials =
  | { readonly kind: "basic"; readonly username: string; readonly password: string }
  /** An OAuth2 refresh token, from `docker login` against registries that give one. */
  | { readonly kind: "identity"; readonly token: string };

/** What a docker config.json says about logins. Keys are normalised: see `normalizeKey`. */
export interface DockerConfig {
  readonly auths: ReadonlyMap<string, Credentials>;
  readonly credHelpers: ReadonlyMap<string, string>;
  readonly credsStore: string | undefined;
}

const HUB_ALIASES: ReadonlySet<string> = new Set(["index.docker.io", "registry-1.docker.io", "docker.io"]);

/** `https://index.docker.io/v1/` -> `docker.io`, `https://host:5000` -> `host:5000`, `host/team` stays. */
export function normalizeKey(key: string): string {
  const name = key
    .replace(/^https?:\/\//, "")
    .replace(/\/+$/, "")
    .replace(/\/v[12]$/, "");
  const slash = name.indexOf("/");
  const host = (slash === -1 ? name : name.slice(0, slash)).toLowerCase();
  return (HUB_ALIASES.has(host) ? DOCKER_HUB : host) + (slash === -1 ? "" : name.slice(slash));
}

/** The entry for a repository: the longest key that is its registry or a path above it, whole components only. */
export function lookup<T>(entries: ReadonlyMap<string, T>, repository: Repository): T | undefined {
  const parts = `${repository.registry}/${repository.repository}`.split("/");
  for (let length = parts.length; length > 0; length -= 1) {
    const found = entries.get(parts.slice(0, length).join("/"));
    if (found !== undefined) return found;
  }
  return undefined;
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const textOf = (value: unknown): string | undefined =>
  typeof value === "string" && value !== "" ? value : undefined;

function readAuth(entry: unknown): Credentials | undefined {
  if (!isRecord(entry)) return undefined;
  const identity = textOf(entry["identitytoken"]);
  if (identity !== undefined) return { kind: "identity", token: identity };
  const auth = textOf(entry["auth"]);
  if (auth !== undefined) {
    const decoded = Buffer.from(auth, "base64").toString("utf8");
    const colon = decoded.indexOf(":");
    if (colon > 0) {
      // Docker pads what it writes with NULs in some versions.
      return {
        kind: "basic",
        username: decoded.slice(0, colon),
        password: decoded.slice(colon + 1).replace(/\0+$/, ""),
      };
    }
  }
  const username = textOf(entry["username"]);
  const password = textOf(entry["password"]);
  return username === undefined || password === undefined ? undefined : { kind: "basic", username, password };
}

/** Reads config.json, or the `.dockerconfigjson` of a Kubernetes Secret (the same). @throws SyntaxError, TypeError */
export function parseDockerConfig(text: string): DockerConfig {
  const json: unknown = JSON.parse(text);
  if (!isRecord(json)) throw new TypeError("the docker config is no JSON object");
  const auths = new Map<string, Credentials>();
  for (const [key, entry] of Object.entries(isRecord(json["auths"]) ? json["auths"] : {})) {
    const credentials = readAuth(entry);
    if (credentials !== undefined) auths.set(normalizeKey(key), credentials);
  }
  const credHelpers = new Map<string, string>();
  for (const [key, helper] of Object.entries(isRecord(json["credHelpers"]) ? json["credHelpers"] : {})) {
    const name = textOf(helper);
    if (name !== undefined) credHelpers.set(normalizeKey(key), name);
  }
  return { auths, credHelpers, credsStore: textOf(json["credsStore"]) };
}
