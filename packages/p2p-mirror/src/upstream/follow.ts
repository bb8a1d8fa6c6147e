import { SourceError, VIA_MIRROR } from "@p2p-mirror/shared";
import type { Endpoint } from "./registry-config.ts";
import { discard, headerOf, type Transport, type WireAnswer, type WireRequest } from "./transport.ts";

const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
const MAX_REDIRECTS = 5;
const MAX_LOCATION = 16 * 1024;

export interface Followed {
  readonly answer: WireAnswer;
  /** The answer came from the registry's own origin. */
  readonly fromRegistry: boolean;
  /** The first place outside the registry it was redirected to, and the registry's clock then (milliseconds). */
  readonly left: { readonly target: URL; readonly serverNow: number } | undefined;
}

export interface FollowRequest extends WireRequest {
  readonly authorization: string | undefined;
}

/**
 * Sends a request and follows where it is redirected to. Authorization and the administrator's headers go to the
 * registry's own origin only. From https to http only blobs are followed, which are checked against their digest: what
 * a tag means must not come over a connection that anybody on the way can write to.
 */
export async function follow(
  transport: Transport,
  endpoint: Endpoint,
  start: URL,
  request: FollowRequest,
): Promise<Followed> {
  const { authorization, ...wire } = request;
  let url = start;
  let left: Followed["left"];
  for (let hops = 0; ; hops += 1) {
    const own = url.origin === endpoint.origin;
    const headers = own
      ? {
          ...endpoint.config.headers,
          ...(endpoint.listed ? { via: VIA_MIRROR } : {}),
          ...wire.headers,
          ...(authorization === undefined ? {} : { authorization }),
        }
      : wire.headers;
    const answer = await transport.send(endpoint, url, { ...wire, headers });
    if (!REDIRECTS.has(answer.status)) return { answer, fromRegistry: own, left };
    discard(answer);
    const target = readLocation(headerOf(answer, "location"), url);
    const downgrade = url.protocol === "https:" && target?.protocol === "http:" && request.kind !== "blob";
    if (target === undefined || downgrade || hops === MAX_REDIRECTS) {
      const why = target === undefined ? "nowhere" : downgrade ? "to plain http" : "too many times";
      throw new SourceError("STATUS", endpoint.registry, {
        message: `redirected ${why}`,
        status: answer.status,
      });
    }
    if (left === undefined && target.origin !== endpoint.origin) {
      const date = Date.parse(headerOf(answer, "date") ?? "");
      left = { target, serverNow: Number.isNaN(date) ? Date.now() : date };
    }
    url = target;
  }
}

function readLocation(location: string | undefined, base: URL): URL | undefined {
  if (location === undefined || location.length > MAX_LOCATION || !URL.canParse(location, base.href))
    return undefined;
  const url = new URL(location, base.href);
  if (url.protocol !== "https:" && url.protocol !== "http:") return undefined;
  url.username = "";
  url.password = "";
  url.hash = "";
  return url;
}
