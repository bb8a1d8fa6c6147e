import { raceSignal, type Descriptor, type Digest, type Repository } from "@p2p-mirror/shared";
import type { Content } from "../transfer/content.ts";
import { digestHeaders, notModified, notModifiedAnswer, type Answer } from "./answer.ts";
import type { Exchange } from "./exchange.ts";

/** `HEAD` and `GET /v2/<repo>/manifests/<tag>`: the tag is resolved, then it is a request for a digest. */
export async function answerTag(
  content: Content,
  exchange: Exchange,
  repository: Repository,
  tag: string,
): Promise<Answer> {
  const { signal } = exchange;
  const { descriptor, stale } = await raceSignal(content.resolveTag(repository, tag, { signal }), signal);
  if (stale) exchange.markStale();
  if (notModified(exchange.request.headers["if-none-match"], descriptor.digest)) {
    return notModifiedAnswer(descriptor.digest);
  }
  if (exchange.request.method === "HEAD") {
    exchange.firstByte();
    return { status: 200, headers: headHeaders(descriptor), body: null };
  }
  return answerManifest(content, exchange, repository, descriptor.digest);
}

/**
 * `HEAD` and `GET /v2/<repo>/manifests/<digest>`. A Range is passed over: containerd's chunked mode puts `bytes=0-` on
 * manifests too and takes the whole. Accept is passed over as well: a digest names one document, whose type is its own.
 */
export async function answerManifest(
  content: Content,
  exchange: Exchange,
  repository: Repository,
  digest: Digest,
): Promise<Answer> {
  const { signal } = exchange;
  const manifest = await raceSignal(content.manifest(repository, digest, { signal }), signal);
  exchange.source = manifest.source;
  if (notModified(exchange.request.headers["if-none-match"], digest)) return notModifiedAnswer(digest);
  exchange.firstByte();
  if (exchange.request.method === "HEAD") {
    return { status: 200, headers: headHeaders(manifest.descriptor), body: null };
  }
  exchange.body = { sent: manifest.bytes.byteLength };
  return {
    status: 200,
    headers: { "content-type": manifest.descriptor.mediaType, ...digestHeaders(digest) },
    body: manifest.bytes,
  };
}

const headHeaders = ({ digest, size, mediaType }: Descriptor): Record<string, string> => ({
  "content-type": mediaType,
  "content-length": String(size),
  ...digestHeaders(digest),
});
