import { InvalidInputError } from "./errors.ts";
import { isDigest, parseDigest, type Digest } from "./digest.ts";

/** A repository of a registry, as image names write them: `registry` is a host with an optional port. */
export interface Repository {
  readonly registry: string;
  readonly repository: string;
}

/** An image reference with everything spelled out; at least one of tag and digest is there. */
export interface Reference extends Repository {
  readonly tag: string | undefined;
  readonly digest: Digest | undefined;
}

/** OCI distribution spec 1.1, "Pulling manifests": `<name>` and `<reference>` as a tag. */
const REPOSITORY = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/;
const TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;
const HOST_LABEL = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]{0,61}[a-zA-Z0-9])";
const REGISTRY = new RegExp(
  `^(?:${HOST_LABEL}(?:\\.${HOST_LABEL})*|\\[[0-9a-fA-F:]{2,39}\\])(?::\\d{1,5})?$`,
);

/** Registries commonly cap a full name at 255 characters (OCI distribution spec 1.1, same section). */
const MAX_NAME = 255;

export const DOCKER_HUB = "docker.io";

export const isRepository = (text: string): boolean => text.length <= MAX_NAME && REPOSITORY.test(text);
export const isTag = (text: string): boolean => TAG.test(text);
export const isRegistry = (text: string): boolean => text.length <= MAX_NAME && REGISTRY.test(text);

/** @throws InvalidInputError (`NAME_INVALID`) */
export function parseRepository(registry: string, repository: string): Repository {
  if (!isRegistry(registry))
    throw new InvalidInputError("NAME_INVALID", "registry", registry.slice(0, MAX_NAME));
  if (!isRepository(repository)) {
    throw new InvalidInputError("NAME_INVALID", "repository", repository.slice(0, MAX_NAME));
  }
  return { registry: registry.toLowerCase(), repository };
}

/**
 * True for a first path component that is a host name rather than a part of a repository: it has a dot or a port, or is
 * `localhost` (the rule of docker's reference parser, which containerd and every client of the field follow).
 */
export const looksLikeRegistry = (component: string): boolean =>
  (component === "localhost" || component.includes(".") || component.includes(":")) && isRegistry(component);

/**
 * Reads what people write: `nginx`, `ghcr.io/a/b:v1`, `host:5000/x@sha256:…`. Short names belong to docker.io, names of
 * one component there to `library/`; without tag and digest the tag is `latest`.
 * @throws InvalidInputError (`NAME_INVALID`, `TAG_INVALID`, `DIGEST_INVALID`)
 */
export function parseReference(text: string): Reference {
  const at = text.indexOf("@");
  const digest = at === -1 ? undefined : parseDigest(text.slice(at + 1));
  const named = at === -1 ? text : text.slice(0, at);
  const slash = named.indexOf("/");
  const first = slash === -1 ? "" : named.slice(0, slash);
  const registry = looksLikeRegistry(first) ? first : DOCKER_HUB;
  const rest = registry === DOCKER_HUB && first !== DOCKER_HUB ? named : named.slice(slash + 1);
  const colon = rest.lastIndexOf(":");
  const tag = colon === -1 ? undefined : rest.slice(colon + 1);
  if (tag !== undefined && !isTag(tag)) throw new InvalidInputError("TAG_INVALID", "tag", tag.slice(0, 150));
  const name = colon === -1 ? rest : rest.slice(0, colon);
  const repository = registry === DOCKER_HUB && !name.includes("/") ? `library/${name}` : name;
  return {
    ...parseRepository(registry, repository),
    tag: tag ?? (digest === undefined ? "latest" : undefined),
    digest,
  };
}

export function formatReference(reference: Reference): string {
  const tag = reference.tag === undefined ? "" : `:${reference.tag}`;
  const digest = reference.digest === undefined ? "" : `@${reference.digest}`;
  return `${reference.registry}/${reference.repository}${tag}${digest}`;
}

/** The last part of `/v2/<name>/manifests/<reference>`. @throws InvalidInputError (`TAG_INVALID`, `DIGEST_INVALID`) */
export function parseTagOrDigest(text: string): { tag: string } | { digest: Digest } {
  if (isDigest(text)) return { digest: text };
  if (text.includes(":")) return { digest: parseDigest(text) };
  if (!isTag(text)) throw new InvalidInputError("TAG_INVALID", "tag", text.slice(0, 150));
  return { tag: text };
}
