import { Counter, Gauge, Histogram, type Registry } from "prom-client";

/** Why a body ended short of its Content-Length. */
export type CutReason = "source" | "stall" | "drain";

/**
 * Metrics of the registry endpoint. Labels are closed sets: `kind` base, tag, manifest, blob, tags, referrers, invalid;
 * `method` GET, HEAD, other; `source` cache, containerd, peer, upstream, none;
 * `reason` why it was declined (DeclineReason), none.
 */
export function createHttpMetrics(registry: Registry) {
  const registers = [registry];
  return {
    requests: new Counter({
      name: "p2p_mirror_http_requests_total",
      help: "Requests answered by the registry endpoint",
      labelNames: ["kind", "method", "status", "source", "reason"],
      registers,
    }),
    sentBytes: new Counter({
      name: "p2p_mirror_http_sent_bytes_total",
      help: "Body bytes of manifests and blobs handed to clients, by the first source of the answer",
      labelNames: ["source"],
      registers,
    }),
    firstByte: new Histogram({
      name: "p2p_mirror_http_first_byte_seconds",
      help: "From the request to the first byte of a manifest's or blob's body, or to the headers of a HEAD",
      labelNames: ["kind", "source"],
      // From a warm answer of this node (1 ms) over a peer's (3-12 ms are our targets) to upstream's and to the 45 s for
      // which a request may wait while there is hope.
      buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 45],
      registers,
    }),
    duration: new Histogram({
      name: "p2p_mirror_http_request_duration_seconds",
      help: "From the request to the end of the answer",
      labelNames: ["kind"],
      // Small objects take milliseconds, layers over a thin uplink minutes.
      buckets: [0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900],
      registers,
    }),
    inFlight: new Gauge({
      name: "p2p_mirror_http_requests_in_flight",
      help: "Requests being answered now",
      registers,
    }),
    cuts: new Counter({
      name: "p2p_mirror_http_cuts_total",
      help: "Bodies ended short with FIN: the source failed, stalled, or this process is closing",
      labelNames: ["reason"],
      registers,
    }),
    cutResumes: new Counter({
      name: "p2p_mirror_http_cut_resumes_declined_total",
      help: "Range resumes answered 404 since the digest was cut just before",
      registers,
    }),
    clientAborts: new Counter({
      name: "p2p_mirror_http_client_aborts_total",
      help: "Requests whose client left before the end; normal for containerd's chunked mode",
      registers,
    }),
    staleTags: new Counter({
      name: "p2p_mirror_http_stale_tags_total",
      help: "Tags answered from a record of the cluster because upstream could not be asked",
      registers,
    }),
  };
}

export type HttpMetrics = ReturnType<typeof createHttpMetrics>;
