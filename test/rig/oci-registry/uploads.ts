import { randomUUID } from "node:crypto";
import { buffer } from "node:stream/consumers";
import { digestOf, isDigest, parseManifest } from "@p2p-mirror/shared";
import type { RegistryContent } from "./content.ts";
import { send, sendError, type Exchange } from "./send.ts";

/** The push half of the distribution spec 1.1: monolithic, chunked and mounted blobs; manifests; deletes. */
export class Uploads {
  readonly #content: RegistryContent;
  readonly #sessions = new Map<string, Buffer[]>();

  constructor(content: RegistryContent) {
    this.#content = content;
  }

  /** `<name>/blobs/uploads/[<session>]` */
  async blob(exchange: Exchange, base: string, repository: string, session: string): Promise<void> {
    const { request, url } = exchange;
    const digest = url.searchParams.get("digest");
    const place = `${base}/${repository}/blobs`;
    if (request.method === "POST") {
      const mount = url.searchParams.get("mount");
      const from = url.searchParams.get("from");
      if (
        mount !== null &&
        from !== null &&
        isDigest(mount) &&
        this.#content.mount(repository, from, mount)
      ) {
        return send(exchange, { status: 201, headers: { location: `${place}/${mount}` } });
      }
      const id = randomUUID();
      this.#sessions.set(id, []);
      if (digest !== null) return this.#finish(exchange, place, repository, id, digest);
      return send(exchange, { status: 202, headers: { location: `${place}/uploads/${id}`, range: "0-0" } });
    }
    const parts = this.#sessions.get(session);
    if (parts === undefined) return sendError(exchange, 404, "BLOB_UPLOAD_UNKNOWN");
    if (request.method === "PUT") return this.#finish(exchange, place, repository, session, digest ?? "");
    if (request.method === "PATCH") parts.push(await buffer(request));
    if (request.method === "DELETE") this.#sessions.delete(session);
    const size = parts.reduce((sum, part) => sum + part.length, 0);
    return send(exchange, {
      status: request.method === "PATCH" ? 202 : 204,
      headers: { location: `${place}/uploads/${session}`, range: `0-${Math.max(0, size - 1)}` },
    });
  }

  async manifest(exchange: Exchange, base: string, repository: string, reference: string): Promise<void> {
    const bytes = await buffer(exchange.request);
    const mediaType = exchange.request.headers["content-type"] ?? "application/octet-stream";
    if (isDigest(reference) && digestOf(bytes) !== reference)
      return sendError(exchange, 400, "DIGEST_INVALID");
    const digest = this.#content.putManifest(repository, mediaType, bytes);
    if (!isDigest(reference)) this.#content.tag(repository, reference, digest);
    const subject = parseManifest(bytes).subject?.digest;
    return send(exchange, {
      status: 201,
      headers: {
        location: `${base}/${repository}/manifests/${digest}`,
        "docker-content-digest": digest,
        ...(subject === undefined ? {} : { "oci-subject": subject }),
      },
    });
  }

  async #finish(
    exchange: Exchange,
    place: string,
    repository: string,
    id: string,
    digest: string,
  ): Promise<void> {
    const bytes = Buffer.concat([...(this.#sessions.get(id) ?? []), await buffer(exchange.request)]);
    this.#sessions.delete(id);
    const algorithm = digest.startsWith("sha512:") ? "sha512" : "sha256";
    if (!isDigest(digest) || digestOf(bytes, algorithm) !== digest)
      return sendError(exchange, 400, "DIGEST_INVALID");
    this.#content.putBlob(repository, bytes, digest);
    return send(exchange, {
      status: 201,
      headers: { location: `${place}/${digest}`, "docker-content-digest": digest },
    });
  }
}
