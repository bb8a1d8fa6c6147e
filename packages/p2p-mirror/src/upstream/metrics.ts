import { Counter, Gauge, type Registry } from "prom-client";

/** Label values beyond this many registries are `other`: clients may name any registry they like. */
const MAX_REGISTRIES = 64;

export type UpstreamMetrics = ReturnType<typeof createUpstreamMetrics>;

export function createUpstreamMetrics(registry: Registry) {
  const registers = [registry];
  const known = new Set<string>();
  return {
    /** The label for a registry's name. */
    label(name: string): string {
      if (known.has(name)) return name;
      if (known.size >= MAX_REGISTRIES) return "other";
      known.add(name);
      return name;
    },
    requests: new Counter({
      name: "p2p_mirror_upstream_requests_total",
      help: "Requests to registries, their redirects included, by what was asked and the answer's status class, or the error's code",
      labelNames: ["registry", "kind", "outcome"] as const,
      registers,
    }),
    bytes: new Counter({
      name: "p2p_mirror_upstream_received_bytes_total",
      help: "Body bytes received from registries and where they redirected to",
      labelNames: ["registry"] as const,
      registers,
    }),
    errors: new Counter({
      name: "p2p_mirror_upstream_errors_total",
      help: "Operations that failed for good, by error code",
      labelNames: ["registry", "code"] as const,
      registers,
    }),
    retries: new Counter({
      name: "p2p_mirror_upstream_retries_total",
      help: "Requests sent again after a failure before the first body byte",
      labelNames: ["registry"] as const,
      registers,
    }),
    tokens: new Counter({
      name: "p2p_mirror_upstream_token_requests_total",
      help: "Requests to token servers by outcome",
      labelNames: ["registry", "outcome"] as const,
      registers,
    }),
    rateLimit: new Gauge({
      name: "p2p_mirror_upstream_rate_limit_requests",
      help: "What the registry says this node may ask in its window",
      labelNames: ["registry"] as const,
      registers,
    }),
    rateLimitRemaining: new Gauge({
      name: "p2p_mirror_upstream_rate_limit_remaining_requests",
      help: "What the registry says is left of it",
      labelNames: ["registry"] as const,
      registers,
    }),
    reachable: new Gauge({
      name: "p2p_mirror_upstream_reachable",
      help: "0 while the registry did not answer lately and requests fail at once",
      labelNames: ["registry"] as const,
      registers,
    }),
    trips: new Counter({
      name: "p2p_mirror_upstream_breaker_trips_total",
      help: "Times a registry was found unreachable",
      labelNames: ["registry"] as const,
      registers,
    }),
    helpers: new Counter({
      name: "p2p_mirror_upstream_credential_helper_runs_total",
      help: "Runs of docker credential helpers by outcome",
      labelNames: ["outcome"] as const,
      registers,
    }),
  };
}
