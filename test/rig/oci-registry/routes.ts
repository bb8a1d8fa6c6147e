import { MEDIA_TYPES } from "@p2p-mirror/shared";
import type { Authenticator } from "./auth.ts";
import type { RegistryContent } from "./content.ts";
import type { RequestKind } from "./faults.ts";
import { send, sendError, type Exchange } from "./send.ts";
import type { Uploads } from "./uploads.ts";

export interface Routed {
  readonly kind: RequestKind;
  readonly repository: string | undefined;
  /** Tag, digest or upload session. */
  readonly reference: string;
}

/** What a path below the base path (`/v2`) asks for. */
export function route(path: string, base: string): Routed {
  if (path === "/token") return { kind: "token", repository: undefined, reference: "" };
  if (path === base || path === `${base}/`) return { kind: "ping", repository: undefined, reference: "" };
  const rest = path.startsWith(`${base}/`) ? path.slice(base.length + 1) : "";
  const upload = /^(.+)\/blobs\/uploads\/([^/]*)$/.exec(rest);
  if (upload !== null) return { kind: "upload", repository: upload[1], reference: upload[2] ?? "" };
  const match = /^(.+)\/(manifests|blobs|tags|referrers)\/([^/]+)$/.exec(rest);
  const kinds: Record<string, RequestKind> = {
    manifests: "manifest",
    blobs: "blob",
    tags: "tags",
    referrers: "referrers",
  };
  const kind = kinds[match?.[2] ?? ""] ?? "unknown";
  return { kind, repository: match?.[1], reference: match?.[3] ?? "" };
}

export interface RouteDeps {
  readonly content: RegistryContent;
  readonly authenticator: Authenticator;
  readonly uploads: Uploads;
  /** `/v2`, or what was configured. */
  readonly base: string;
  readonly origin: () => string;
  readonly referrersApi: boolean;
  /** Where a GET of a blob is sent instead of being answered. */
  readonly blobLocation: ((digest: string) => string) | undefined;
}

const isRead = (method: string | undefined): boolean => method === "GET" || method === "HEAD";

export async function answer(exchange: Exchange, routed: Routed, deps: RouteDeps): Promise<void> {
  const { method } = exchange.request;
  const { kind, reference } = routed;
  if (kind === "token") return deps.authenticator.token(exchange);
  const repository = routed.repository ?? "";
  const wanted = { repository: routed.repository, action: isRead(method) ? "pull" : "push" } as const;
  if (!(await deps.authenticator.admits(exchange, wanted, deps.origin()))) return;
  if (kind === "ping") return send(exchange, { headers: { "content-type": "application/json" }, body: "{}" });
  if (kind === "upload") return deps.uploads.blob(exchange, deps.base, repository, reference);
  if (method === "DELETE") {
    const removed = deps.content.remove(repository, reference);
    return removed ? send(exchange, { status: 202 }) : sendError(exchange, 404, "MANIFEST_UNKNOWN");
  }
  if (kind === "manifest" && method === "PUT") {
    return deps.uploads.manifest(exchange, deps.base, repository, reference);
  }
  if (!isRead(method)) return sendError(exchange, 405, "UNSUPPORTED");
  if (kind === "manifest") return manifest(exchange, repository, reference, deps);
  if (kind === "blob") return blob(exchange, repository, reference, deps);
  if (kind === "tags") return tags(exchange, repository, deps);
  if (kind === "referrers" && deps.referrersApi) return referrers(exchange, repository, reference, deps);
  return sendError(exchange, 404, "UNSUPPORTED");
}

function manifest(
  exchange: Exchange,
  repository: string,
  reference: string,
  { content }: RouteDeps,
): Promise<void> {
  const found = content.manifest(repository, reference);
  if (found === undefined) {
    return sendError(exchange, 404, content.has(repository) ? "MANIFEST_UNKNOWN" : "NAME_UNKNOWN");
  }
  const etag = `"${found.digest}"`;
  if (exchange.request.headers["if-none-match"] === etag)
    return send(exchange, { status: 304, headers: { etag } });
  return send(exchange, {
    headers: { "content-type": found.mediaType, "docker-content-digest": found.digest, etag },
    body: found.bytes,
  });
}

function blob(exchange: Exchange, repository: string, digest: string, deps: RouteDeps): Promise<void> {
  const bytes = deps.content.blob(repository, digest);
  if (bytes === undefined) return sendError(exchange, 404, "BLOB_UNKNOWN");
  if (deps.blobLocation !== undefined && exchange.request.method === "GET") {
    return send(exchange, { status: 307, headers: { location: deps.blobLocation(digest) } });
  }
  return send(exchange, {
    headers: { "content-type": MEDIA_TYPES.octetStream, "docker-content-digest": digest },
    body: bytes,
    ranges: true,
  });
}

function tags(exchange: Exchange, repository: string, { content, base }: RouteDeps): Promise<void> {
  if (!content.has(repository)) return sendError(exchange, 404, "NAME_UNKNOWN");
  const query = exchange.url.searchParams;
  const last = query.get("last") ?? "";
  const after = content.tags(repository).filter((tag) => tag > last);
  const page = query.has("n") ? after.slice(0, Number(query.get("n"))) : after;
  const next = `${base}/${repository}/tags/list?n=${page.length}&last=${page.at(-1) ?? ""}`;
  return send(exchange, {
    headers: {
      "content-type": "application/json",
      ...(page.length < after.length ? { link: `<${next}>; rel="next"` } : {}),
    },
    body: JSON.stringify({ name: repository, tags: page }),
  });
}

function referrers(
  exchange: Exchange,
  repository: string,
  digest: string,
  { content }: RouteDeps,
): Promise<void> {
  const artifactType = exchange.url.searchParams.get("artifactType") ?? undefined;
  return send(exchange, {
    headers: {
      "content-type": MEDIA_TYPES.ociIndex,
      ...(artifactType === undefined ? {} : { "oci-filters-applied": "artifactType" }),
    },
    body: JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.ociIndex,
      manifests: content.referrers(repository, digest, artifactType),
    }),
  });
}
