/** Nobody is kept waiting longer than this, whatever a header says. */
const MAX_RETRY_AFTER_MS = 60 * 60 * 1000;

/**
 * Milliseconds a Retry-After header asks for (RFC 9110, 10.2.3: seconds or a date), undefined when it cannot be read. A
 * date is taken relative to the answer's own Date: clocks of nodes are wrong.
 */
export function parseRetryAfter(
  header: string | undefined,
  date: string | undefined,
  now: number,
): number | undefined {
  if (header === undefined) return undefined;
  const text = header.trim();
  if (/^\d{1,12}$/.test(text)) return Math.min(Number(text) * 1000, MAX_RETRY_AFTER_MS);
  const until = text.length > 40 ? Number.NaN : Date.parse(text);
  if (Number.isNaN(until)) return undefined;
  const serverNow = date === undefined ? Number.NaN : Date.parse(date);
  return Math.min(Math.max(0, until - (Number.isNaN(serverNow) ? now : serverNow)), MAX_RETRY_AFTER_MS);
}

/** Docker Hub's `ratelimit-remaining: 76;w=21600`, or a bare number. */
export function parseRateLimit(header: string | undefined): number | undefined {
  const match = header === undefined ? null : /^\s*(\d{1,9})\s*(?:;|$)/.exec(header);
  return match === null ? undefined : Number(match[1]);
}
