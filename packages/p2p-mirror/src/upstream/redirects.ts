import { LRUCache } from "lru-cache";

/** Milliseconds a redirect is believed when it does not say how long it lives. */
const DEFAULT_LIFE_MS = 60_000;
const MAX_LIFE_MS = 60 * 60 * 1000;
/** Part of its life a link is used for: a request that starts at the very end would still have to arrive. */
const USABLE_LIFE = 0.9;

/** ISO 8601 basic form (`20260101T000000Z`) of Amazon's and Google's signatures. */
function parseBasicDate(text: string | null): number {
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(text ?? "");
  if (match === null) return Number.NaN;
  const [, year, month, day, hour, minute, second] = match;
  return Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
}

/**
 * Milliseconds a presigned link lives from now on, by the parameters of the object stores that registries use: Amazon S3
 * and its kin (`X-Amz-Date`, `X-Amz-Expires`), Google (`X-Goog-…`), Azure (`se`), CloudFront and older S3 and Alibaba
 * signatures (`Expires`), Cloudflare's `verify=<seconds>-…`. `serverNow`: the registry's clock when it answered.
 */
export function lifeOf(url: URL, serverNow: number): number {
  const query = new Map([...url.searchParams].map(([name, value]) => [name.toLowerCase(), value]));
  const ends: number[] = [];
  for (const brand of ["amz", "goog"]) {
    const signed = parseBasicDate(query.get(`x-${brand}-date`) ?? null);
    const seconds = Number(query.get(`x-${brand}-expires`) ?? Number.NaN);
    if (!Number.isNaN(seconds)) ends.push((Number.isNaN(signed) ? serverNow : signed) + seconds * 1000);
  }
  const azure = query.get("se");
  if (azure !== undefined) ends.push(Date.parse(azure));
  const epoch = query.get("expires") ?? /^(\d{10})-/.exec(query.get("verify") ?? "")?.[1];
  if (epoch !== undefined) ends.push(Number(epoch) * 1000);
  const known = ends.filter((end) => Number.isFinite(end));
  const life = known.length === 0 ? DEFAULT_LIFE_MS : Math.min(...known) - serverNow;
  return Math.min(Math.max(0, life), MAX_LIFE_MS) * USABLE_LIFE;
}

/** Where blobs were redirected to lately. The links are credentials: they stay in memory and in here. */
export class RedirectMemory {
  readonly #targets: LRUCache<string, URL>;

  constructor(max = 2000) {
    this.#targets = new LRUCache({ max, ttlAutopurge: false });
  }

  get(key: string): URL | undefined {
    return this.#targets.get(key);
  }

  remember(key: string, target: URL, serverNow: number): void {
    const ttl = Math.floor(lifeOf(target, serverNow));
    if (ttl > 0) this.#targets.set(key, target, { ttl });
  }

  forget(key: string): void {
    this.#targets.delete(key);
  }
}
