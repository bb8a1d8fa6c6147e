import { randomBytes } from "node:crypto";
import type { RegistryContent } from "./content.ts";
import { send, sendError, type Exchange } from "./send.ts";

/** Object storage behind a registry: hands out links that are credentials by themselves, for a while. */
export class PresignedStorage {
  readonly #content: RegistryContent;
  readonly #lifeMs: number;
  readonly #signatures = new Map<string, { digest: string; expires: number }>();

  constructor(content: RegistryContent, lifeMs: number) {
    this.#content = content;
    this.#lifeMs = lifeMs;
  }

  /** A link in the shape S3 has; valid for the configured life, whatever `X-Amz-Expires` (whole seconds) rounds it to. */
  link(origin: string, digest: string): string {
    const signature = randomBytes(32).toString("hex");
    this.#signatures.set(signature, { digest, expires: Date.now() + this.#lifeMs });
    const date = new Date().toISOString().replaceAll(/[-:]|\.\d{3}/g, "");
    const query = new URLSearchParams({
      "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
      "X-Amz-Date": date,
      "X-Amz-Expires": String(Math.ceil(this.#lifeMs / 1000)),
      "X-Amz-Signature": signature,
    });
    return `${origin}/blobs/${digest}?${query.toString()}`;
  }

  /** Makes all links given so far invalid, as if their time were up. */
  expireAll(): void {
    this.#signatures.clear();
  }

  async answer(exchange: Exchange): Promise<void> {
    const digest = exchange.url.pathname.replace("/blobs/", "");
    const given = this.#signatures.get(exchange.url.searchParams.get("X-Amz-Signature") ?? "");
    // Real object stores refuse a second way of authentication: whoever forwards credentials here is found out.
    if (exchange.record.authorization !== undefined) return sendError(exchange, 400, "InvalidArgument");
    if (given?.digest !== digest || given.expires < Date.now())
      return sendError(exchange, 403, "AccessDenied");
    const body = this.#content.anyBlob(digest);
    if (body === undefined) return sendError(exchange, 404, "NoSuchKey");
    return send(exchange, { headers: { "content-type": "binary/octet-stream" }, body, ranges: true });
  }
}
