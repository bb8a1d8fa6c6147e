import { SourceError, type Repository } from "@p2p-mirror/shared";
import { readBounded } from "./body.ts";
import type { ObjectAnswer, ObjectClient } from "./object-client.ts";
import type { Endpoint } from "./registry-config.ts";
import { headerOf, headersOf } from "./transport.ts";
import type { UpstreamList } from "./upstream.ts";

const MAX_LIST_BYTES = 4 * 1024 * 1024;
/** Pages taken together when the registry pages by something a client of ours could not send back. */
const MAX_PAGES = 100;
const MAX_LINK = 4096;
const JSON_TYPE = "application/json";

interface Page {
  readonly list: UpstreamList;
  /** The query of the next page, as upstream wants it. */
  readonly next: URLSearchParams | undefined;
}

/** Query of the first Link target with `rel="next"` (RFC 8288). */
function nextQuery(answer: ObjectAnswer): URLSearchParams | undefined {
  for (const header of headersOf(answer, "link")) {
    if (header.length > MAX_LINK) continue;
    const match = /<([^>]*)>\s*;[^,<]*\brel\s*=\s*"?next\b/i.exec(header);
    const target = match?.[1];
    if (target !== undefined && URL.canParse(target, answer.url.href))
      return new URL(target, answer.url.href).searchParams;
  }
  return undefined;
}

/** The part of it that the distribution spec knows; undefined when there is more to it, or not even that. */
function standardQuery(query: URLSearchParams): URLSearchParams | undefined {
  const names = new Set(query.keys());
  names.delete("ns");
  const standard = new URLSearchParams();
  for (const name of ["n", "last"]) {
    const value = query.get(name);
    if (names.delete(name) && value !== null) standard.set(name, value);
  }
  return names.size === 0 && standard.has("last") ? standard : undefined;
}

/**
 * GET of `tags/list`, as upstream answers it. `next` is a path below `/v2` with `n` and `last` only; a registry that
 * pages by a token of its own has its pages put together, since a client that lost the token would turn in circles.
 */
export async function listTags(
  client: ObjectClient,
  endpoint: Endpoint,
  repository: Repository,
  query: { n?: number; last?: string },
  signal: AbortSignal | undefined,
): Promise<UpstreamList> {
  const page = (params: URLSearchParams): Promise<Page> =>
    fetchPage(client, endpoint, repository, params, signal);
  const first = new URLSearchParams();
  if (query.n !== undefined) first.set("n", String(query.n));
  if (query.last !== undefined) first.set("last", query.last);
  const { list, next } = await page(first);
  if (next === undefined) return list;
  const standard = standardQuery(next);
  if (standard !== undefined) {
    return { ...list, next: `/v2/${repository.repository}/tags/list?${standard.toString()}` };
  }
  const tags = readTags(list, repository);
  let more: URLSearchParams | undefined = next;
  for (let pages = 1; more !== undefined; pages += 1) {
    if (pages === MAX_PAGES || tags.length * 128 > 4 * MAX_LIST_BYTES) {
      throw new SourceError("STATUS", repository.registry, { message: "the list of tags does not end" });
    }
    const further: Page = await page(more);
    tags.push(...readTags(further.list, repository));
    more = further.next;
  }
  const body = Buffer.from(JSON.stringify({ name: repository.repository, tags }));
  return { contentType: JSON_TYPE, body, next: undefined, filtersApplied: undefined };
}

function fetchPage(
  client: ObjectClient,
  endpoint: Endpoint,
  repository: Repository,
  params: URLSearchParams,
  signal: AbortSignal | undefined,
): Promise<Page> {
  params.delete("ns");
  return client.run(
    endpoint,
    {
      kind: "tags",
      method: "GET",
      repository,
      rest: "tags/list",
      query: Object.fromEntries(params),
      headers: { accept: JSON_TYPE },
      signal,
    },
    async (answer) => ({
      list: {
        contentType: headerOf(answer, "content-type")?.slice(0, 255) ?? JSON_TYPE,
        body: await readBounded(answer.body, MAX_LIST_BYTES, repository.registry, signal),
        next: undefined,
        filtersApplied: undefined,
      },
      next: nextQuery(answer),
    }),
  );
}

function readTags(list: UpstreamList, { registry }: Repository): unknown[] {
  try {
    const json: unknown = JSON.parse(Buffer.from(list.body).toString("utf8"));
    if (typeof json === "object" && json !== null && "tags" in json) {
      if (Array.isArray(json.tags)) return [...json.tags];
      if (json.tags === null) return [];
    }
  } catch (error) {
    throw new SourceError("STATUS", registry, { message: "a list of tags that is no JSON", cause: error });
  }
  throw new SourceError("STATUS", registry, { message: "a list of tags without tags" });
}
