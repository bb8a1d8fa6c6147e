import type { UpstreamMetrics } from "./metrics.ts";
import type { Endpoint } from "./registry-config.ts";
import { parseRateLimit, parseRetryAfter } from "./retry-after.ts";
import { headerOf, type Transport, type WireAnswer } from "./transport.ts";

/**
 * What an answer of the registry or its token server says about how much may be asked. A 429, or a 503 with Retry-After,
 * closes the registry for every request of this node until then.
 * @returns milliseconds to wait, when the answer says so
 */
export function heedLimits(
  endpoint: Endpoint,
  answer: WireAnswer,
  deps: { readonly transport: Transport; readonly metrics: UpstreamMetrics },
): number | undefined {
  const registry = deps.metrics.label(endpoint.registry);
  const limit = parseRateLimit(headerOf(answer, "ratelimit-limit"));
  const remaining = parseRateLimit(headerOf(answer, "ratelimit-remaining"));
  if (limit !== undefined) deps.metrics.rateLimit.set({ registry }, limit);
  const gate = deps.transport.gate(endpoint);
  if (remaining !== undefined) {
    deps.metrics.rateLimitRemaining.set({ registry }, remaining);
    gate.remaining = remaining;
  }
  if (answer.status < 400) gate.unlimited();
  if (answer.status !== 429 && answer.status !== 503) return undefined;
  const asked = parseRetryAfter(headerOf(answer, "retry-after"), headerOf(answer, "date"), Date.now());
  if (answer.status === 503 && asked === undefined) return undefined;
  return gate.limit(asked);
}
