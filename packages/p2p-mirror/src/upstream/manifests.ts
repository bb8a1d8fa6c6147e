import {
  algorithmOf,
  digestOf,
  IntegrityError,
  isDigest,
  isManifestType,
  MAX_MANIFEST_BYTES,
  MEDIA_TYPES,
  parseManifest,
  SourceError,
  type Descriptor,
  type Digest,
  type Repository,
} from "@p2p-mirror/shared";
import { readBounded } from "./body.ts";
import type { ObjectAnswer, ObjectClient } from "./object-client.ts";
import type { Endpoint } from "./registry-config.ts";
import { discard, headerOf } from "./transport.ts";
import type { UpstreamManifest } from "./upstream.ts";

/** Everything a tag may mean; a wildcard for artifacts with types of their own. */
export const MANIFEST_ACCEPT = [
  MEDIA_TYPES.ociIndex,
  MEDIA_TYPES.ociManifest,
  MEDIA_TYPES.dockerList,
  MEDIA_TYPES.dockerManifest,
  "*/*",
].join(", ");

export interface ManifestAnswer extends UpstreamManifest {
  readonly anonymous: boolean;
}

export interface ResolvedAnswer {
  readonly descriptor: Descriptor;
  readonly anonymous: boolean;
}

const MAX_TYPE = 255;

const mediaTypeOf = (answer: ObjectAnswer): string | undefined => {
  const type = headerOf(answer, "content-type")?.split(";")[0]?.trim().toLowerCase();
  return type === undefined || type === "" || type.length > MAX_TYPE ? undefined : type;
};

const digestHeader = (answer: ObjectAnswer): Digest | undefined => {
  const text = headerOf(answer, "docker-content-digest")?.trim();
  return text !== undefined && isDigest(text) ? text : undefined;
};

/** What HEAD says, when it says all of it; an encoded answer's length is not the manifest's. */
function readHead(answer: ObjectAnswer): Descriptor | undefined {
  const digest = digestHeader(answer);
  const mediaType = mediaTypeOf(answer);
  const size = headerOf(answer, "content-length");
  const encoding = headerOf(answer, "content-encoding") ?? "identity";
  if (answer.status >= 300 || encoding !== "identity") return undefined;
  if (digest === undefined || mediaType === undefined || !isManifestType(mediaType)) return undefined;
  return size !== undefined && /^[1-9]\d{0,9}$/.test(size)
    ? { digest, mediaType, size: Number(size) }
    : undefined;
}

/** HEAD by tag; GET where the registry does not do HEAD (405, 501), or leaves out what must be known. */
export async function resolveManifest(
  client: ObjectClient,
  endpoint: Endpoint,
  repository: Repository,
  reference: string,
  signal: AbortSignal | undefined,
): Promise<ResolvedAnswer> {
  const found = await client.run(
    endpoint,
    {
      kind: "manifest",
      method: "HEAD",
      repository,
      rest: `manifests/${reference}`,
      headers: { accept: MANIFEST_ACCEPT },
      accept: [405, 501],
      signal,
    },
    (answer) => {
      discard(answer);
      return { descriptor: readHead(answer), anonymous: answer.anonymous };
    },
  );
  if (found.descriptor !== undefined) return { descriptor: found.descriptor, anonymous: found.anonymous };
  return fetchManifest(client, endpoint, repository, reference, signal);
}

/**
 * GET by digest or tag. The bytes are checked against the digest that was asked for, or that upstream says the tag has.
 * @throws IntegrityError, and what `ObjectClient.run` throws
 */
export function fetchManifest(
  client: ObjectClient,
  endpoint: Endpoint,
  repository: Repository,
  reference: string,
  signal: AbortSignal | undefined,
): Promise<ManifestAnswer> {
  const { registry } = repository;
  return client.run(
    endpoint,
    {
      kind: "manifest",
      method: "GET",
      repository,
      rest: `manifests/${reference}`,
      headers: { accept: MANIFEST_ACCEPT },
      signal,
    },
    async (answer) => {
      const bytes = await readBounded(answer.body, MAX_MANIFEST_BYTES, registry, signal);
      const announced = headerOf(answer, "content-length");
      if (announced !== undefined && Number(announced) !== bytes.length) {
        throw new SourceError("CUT", registry, { message: `${bytes.length} of ${announced} bytes` });
      }
      const expected = isDigest(reference) ? reference : digestHeader(answer);
      const digest = digestOf(bytes, expected === undefined ? "sha256" : algorithmOf(expected));
      if (expected !== undefined && digest !== expected) {
        throw new IntegrityError("DIGEST_MISMATCH", expected, digest, registry);
      }
      const mediaType = typeOf(answer, bytes, registry, isDigest(reference));
      return { descriptor: { digest, size: bytes.length, mediaType }, bytes, anonymous: answer.anonymous };
    },
  );
}

/**
 * The header's type if it is one of a manifest, else what the document says of itself. What is no document at all (the
 * page of a captive portal) is not what a tag means, whatever its status; by digest the bytes are proof enough.
 */
function typeOf(answer: ObjectAnswer, bytes: Uint8Array, registry: string, isProven: boolean): string {
  const said = mediaTypeOf(answer);
  if (said !== undefined && isManifestType(said)) return said;
  try {
    const own = parseManifest(bytes).mediaType;
    return said === undefined || GENERIC.has(said) ? own : said;
  } catch (error) {
    if (isProven) return said ?? MEDIA_TYPES.octetStream;
    const { status } = answer;
    throw new SourceError("STATUS", registry, { message: "answered with no manifest", status, cause: error });
  }
}

const GENERIC: ReadonlySet<string> = new Set(["application/json", "application/octet-stream", "text/plain"]);
