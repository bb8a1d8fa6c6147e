import type { Digest } from "@p2p-mirror/shared";

/** An answer whose body, if any, is in memory. */
export interface Answer {
  readonly status: number;
  /** With Content-Length when there is no body to take it from (HEAD). */
  readonly headers: Readonly<Record<string, string>>;
  /** Null: none. */
  readonly body: Uint8Array | null;
}

/** The strong validator of content that is named by its digest. */
export const etagOf = (digest: Digest): string => `"${digest}"`;

/** What every answer with content of a digest carries. */
export const digestHeaders = (digest: Digest): Record<string, string> => ({
  "docker-content-digest": digest,
  etag: etagOf(digest),
});

/** If-None-Match (RFC 9110, 13.1.2): weak comparison; some clients send the bare digest without quotes. */
export function notModified(header: string | undefined, digest: Digest): boolean {
  if (header === undefined) return false;
  return header.split(",").some((one) => {
    const tag = one.trim().replace(/^W\//, "");
    return tag === "*" || tag === etagOf(digest) || tag === digest;
  });
}

export const notModifiedAnswer = (digest: Digest): Answer => ({
  status: 304,
  headers: digestHeaders(digest),
  body: null,
});
