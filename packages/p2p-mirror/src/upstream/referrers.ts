import {
  algorithmOf,
  hexOf,
  MAX_MANIFEST_BYTES,
  MEDIA_TYPES,
  NotFoundError,
  SourceError,
  type Digest,
  type Repository,
} from "@p2p-mirror/shared";
import { readBounded } from "./body.ts";
import { fetchManifest } from "./manifests.ts";
import type { ObjectClient } from "./object-client.ts";
import type { Endpoint } from "./registry-config.ts";
import { headerOf } from "./transport.ts";
import type { UpstreamList } from "./upstream.ts";

/**
 * GET of the referrers of a digest. Registries from before distribution spec 1.1 (404, or an answer that is no index)
 * are asked for the tag `<algorithm>-<hex>` instead, as the spec's "Listing Referrers" says; without that there are none.
 */
export async function listReferrers(
  client: ObjectClient,
  endpoint: Endpoint,
  repository: Repository,
  digest: Digest,
  query: { artifactType?: string },
  signal: AbortSignal | undefined,
): Promise<UpstreamList> {
  const list = await fromApi(client, endpoint, repository, digest, query, signal);
  if (list !== undefined) return list;
  return fromTag(client, endpoint, repository, digest, query.artifactType, signal);
}

function fromApi(
  client: ObjectClient,
  endpoint: Endpoint,
  repository: Repository,
  digest: Digest,
  query: { artifactType?: string },
  signal: AbortSignal | undefined,
): Promise<UpstreamList | undefined> {
  return client.run(
    endpoint,
    {
      kind: "referrers",
      method: "GET",
      repository,
      rest: `referrers/${digest}`,
      query: query.artifactType === undefined ? {} : { artifactType: query.artifactType },
      headers: { accept: MEDIA_TYPES.ociIndex },
      accept: [400, 404, 405, 501],
      signal,
    },
    async (answer) => {
      const body = await readBounded(answer.body, MAX_MANIFEST_BYTES, repository.registry, signal);
      const type = headerOf(answer, "content-type")?.split(";")[0]?.trim();
      if (answer.status >= 300 || type !== MEDIA_TYPES.ociIndex) return undefined;
      return {
        contentType: type,
        body,
        next: undefined,
        filtersApplied: headerOf(answer, "oci-filters-applied")?.slice(0, 255),
      };
    },
  );
}

async function fromTag(
  client: ObjectClient,
  endpoint: Endpoint,
  repository: Repository,
  digest: Digest,
  artifactType: string | undefined,
  signal: AbortSignal | undefined,
): Promise<UpstreamList> {
  // The spec cuts the hex part so that the whole fits into a tag.
  const tag = `${algorithmOf(digest)}-${hexOf(digest).slice(0, 64)}`;
  const manifests = await fetchManifest(client, endpoint, repository, tag, signal).then(
    ({ bytes }) => readManifests(bytes, repository.registry),
    (error: unknown) => {
      if (error instanceof NotFoundError) return [];
      throw error;
    },
  );
  const index = {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.ociIndex,
    manifests:
      artifactType === undefined ? manifests : manifests.filter((one) => one.artifactType === artifactType),
  };
  return {
    contentType: MEDIA_TYPES.ociIndex,
    body: Buffer.from(JSON.stringify(index)),
    next: undefined,
    filtersApplied: artifactType === undefined ? undefined : "artifactType",
  };
}

function readManifests(bytes: Uint8Array, registry: string): { artifactType?: unknown }[] {
  try {
    const json: unknown = JSON.parse(Buffer.from(bytes).toString("utf8"));
    if (typeof json === "object" && json !== null && "manifests" in json && Array.isArray(json.manifests)) {
      return json.manifests.filter((one) => typeof one === "object" && one !== null);
    }
  } catch (error) {
    throw new SourceError("STATUS", registry, {
      message: "a list of referrers that is no JSON",
      cause: error,
    });
  }
  return [];
}
