import {
  DOCKER_HUB,
  InvalidInputError,
  looksLikeRegistry,
  parseDigest,
  parseRepository,
  parseTagOrDigest,
  type Digest,
  type Repository,
} from "@p2p-mirror/shared";
import { OciError } from "./oci-errors.ts";

/** Parameters of the list requests; the others take none besides `ns`. */
export interface ListQuery {
  readonly n?: number;
  readonly last?: string;
  readonly artifactType?: string;
}

/** What a request target asks for, validated once; nothing behind this looks at a URL again. */
export type DistributionPath =
  | { readonly kind: "base" }
  | (Repository & { readonly kind: "tag"; readonly tag: string })
  | (Repository & { readonly kind: "manifest"; readonly digest: Digest })
  | (Repository & { readonly kind: "blob"; readonly digest: Digest })
  | (Repository & { readonly kind: "tags"; readonly query: ListQuery; readonly link: LinkForm })
  | (Repository & {
      readonly kind: "referrers";
      readonly digest: Digest;
      readonly query: ListQuery;
      readonly link: LinkForm;
    });

/** How the client named the registry, so that the Link header of a list continues in the same form. */
export interface LinkForm {
  /** As requested, without the query. */
  readonly path: string;
  readonly ns: string | undefined;
}

export type PathKind = DistributionPath["kind"];

/** Far above the longest honest target: name and registry of 255 characters each, a sha512 digest, a page's parameters. */
export const MAX_TARGET_LENGTH = 4096;
const MAX_PARAMETER = 1024;
const MAX_PAGE = 10_000;

/** Names that mean docker.io. containerd sends `docker.io`; the others come from people and from other clients. */
const DOCKER_HUB_ALIASES: ReadonlySet<string> = new Set(["index.docker.io", "registry-1.docker.io"]);

const NO_REGISTRY =
  "which registry? containerd says it as ?ns=<registry>; other clients put it first in the path, " +
  "as in /v2/docker.io/library/nginx/manifests/latest";

/**
 * Reads a request target: `/v2/<repo>/…?ns=<registry>`, or without `ns` `/v2/<registry>/<repo>/…` when the first
 * component looks like a host. The absolute form (RFC 9112, 3.2.2) is read like the origin form.
 * @throws OciError (404 for paths that are none of ours or name no registry, 414)
 * @throws InvalidInputError (`NAME_INVALID`, `TAG_INVALID`, `DIGEST_INVALID`)
 */
export function parseDistributionPath(target: string): DistributionPath {
  if (target.length > MAX_TARGET_LENGTH) throw new OciError(414, "NAME_INVALID", "the URL is too long");
  const origin = target.replace(/^https?:\/\/[^/?#]*/i, "");
  const mark = origin.indexOf("?");
  const path = mark === -1 ? origin : origin.slice(0, mark);
  const query = new URLSearchParams(mark === -1 ? "" : origin.slice(mark + 1));
  if (path === "/v2" || path === "/v2/") return { kind: "base" };
  const segments = path.split("/").map(decodeSegment);
  const [empty, version, ...rest] = segments;
  const last = rest.at(-1);
  const verb = rest.at(-2);
  if (empty !== "" || version !== "v2" || verb === undefined || last === undefined) throw unknownPath();
  const name = rest.slice(0, -2);

  if (verb === "manifests") {
    const repository = repositoryOf(name, query);
    const reference = parseTagOrDigest(last);
    return "tag" in reference
      ? { kind: "tag", ...repository, ...reference }
      : { kind: "manifest", ...repository, ...reference };
  }
  if (verb === "blobs") return { kind: "blob", ...repositoryOf(name, query), digest: parseDigest(last) };
  const link: LinkForm = { path, ns: query.get("ns") ?? undefined };
  if (verb === "tags" && last === "list") {
    return { kind: "tags", ...repositoryOf(name, query), query: pageOf(query), link };
  }
  if (verb === "referrers") {
    const artifactType = parameterOf(query, "artifactType");
    return {
      kind: "referrers",
      ...repositoryOf(name, query),
      digest: parseDigest(last),
      query: artifactType === undefined ? {} : { artifactType },
      link,
    };
  }
  throw unknownPath();
}

const unknownPath = (): OciError => new OciError(404, "NAME_UNKNOWN", "no such endpoint");

/** A component of the path, percent-decoded; one that hides a slash is none (it could only be an attack or a mistake). */
function decodeSegment(segment: string): string {
  let decoded: string;
  try {
    decoded = decodeURIComponent(segment);
  } catch (error) {
    throw new InvalidInputError("NAME_INVALID", "path", segment.slice(0, 150), { cause: error });
  }
  if (decoded.includes("/")) throw new InvalidInputError("NAME_INVALID", "path", segment.slice(0, 150));
  return decoded;
}

function repositoryOf(name: readonly string[], query: URLSearchParams): Repository {
  const namespaces = query.getAll("ns");
  if (namespaces.length > 1) throw new InvalidInputError("NAME_INVALID", "ns", "given more than once");
  const [ns] = namespaces;
  if (ns !== undefined) return canonical(parseRepository(ns, name.join("/")));
  const [first, ...rest] = name;
  if (first === undefined || rest.length === 0 || !looksLikeRegistry(first)) {
    // A name that could never be one is the client's mistake; a good one only lacks its registry.
    parseRepository(DOCKER_HUB, name.join("/"));
    throw new OciError(404, "NAME_UNKNOWN", NO_REGISTRY);
  }
  return canonical(parseRepository(first, rest.join("/")));
}

/** One spelling per repository, so that caches, access verdicts and flights are not split over aliases. */
function canonical({ registry, repository }: Repository): Repository {
  if (registry !== DOCKER_HUB && !DOCKER_HUB_ALIASES.has(registry)) return { registry, repository };
  return {
    registry: DOCKER_HUB,
    repository: repository.includes("/") ? repository : `library/${repository}`,
  };
}

function parameterOf(query: URLSearchParams, name: string): string | undefined {
  const value = query.get(name) ?? undefined;
  if (value !== undefined && value.length > MAX_PARAMETER) {
    throw new OciError(400, "UNSUPPORTED", `${name} is too long`);
  }
  return value;
}

function pageOf(query: URLSearchParams): ListQuery {
  const n = parameterOf(query, "n");
  const last = parameterOf(query, "last");
  if (n !== undefined && !/^\d{1,9}$/.test(n)) throw new OciError(400, "UNSUPPORTED", "n must be a number");
  return {
    ...(n === undefined ? {} : { n: Math.min(Number(n), MAX_PAGE) }),
    ...(last === undefined ? {} : { last }),
  };
}
