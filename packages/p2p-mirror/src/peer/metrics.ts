import { Counter, Gauge, Histogram, type Registry } from "prom-client";

/** How an answer to a peer ended. */
export type ServedOutcome =
  | "complete"
  | "not-found"
  | "busy"
  | "refused" /* malformed, wrong method, beyond the end */
  | "cut" /* our source failed short of the end */
  | "stalled" /* the reader took nothing */
  | "left" /* the reader closed the connection */
  | "drained"; /* cut because this node ends */

/** How a request to a peer ended. */
export type FetchedOutcome =
  | "complete"
  | "not-found"
  | "busy"
  | "breaker-open"
  | "unreachable"
  | "no-first-byte"
  | "stalled"
  | "cut"
  | "status"
  | "aborted";

export type PeerMetrics = ReturnType<typeof createPeerMetrics>;

/** Metrics of the peer data plane, both sides. `kind`: blob, piece, stat (HEAD), record. */
export function createPeerMetrics(registry: Registry) {
  const registers = [registry];
  return {
    served: new Counter({
      name: "p2p_mirror_peer_served_total",
      help: "Requests of peers, by how the answer ended",
      labelNames: ["kind", "outcome"],
      registers,
    }),
    sentBytes: new Counter({
      name: "p2p_mirror_peer_sent_bytes_total",
      help: "Blob bytes sent to peers",
      registers,
    }),
    uploadSlots: new Gauge({
      name: "p2p_mirror_peer_upload_slots",
      help: "Upload slots, by state (busy, all)",
      labelNames: ["state"],
      registers,
    }),
    rejectedSockets: new Counter({
      name: "p2p_mirror_peer_rejected_sockets_total",
      help: "Connections to the peer data plane that ended in the handshake (no certificate of this cluster, no TLS)",
      registers,
    }),
    fetched: new Counter({
      name: "p2p_mirror_peer_fetched_total",
      help: "Requests to peers, by how they ended",
      labelNames: ["kind", "outcome"],
      registers,
    }),
    receivedBytes: new Counter({
      name: "p2p_mirror_peer_received_bytes_total",
      help: "Blob bytes received from peers, not yet verified",
      registers,
    }),
    firstByte: new Histogram({
      name: "p2p_mirror_peer_first_byte_seconds",
      help: "From the request (dial included) to the head of a peer's answer",
      // A warm connection in a rack answers within a millisecond, a new one takes a handshake; 1 s dial + 3 s are the end.
      buckets: [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4],
      registers,
    }),
    breakerTrips: new Counter({
      name: "p2p_mirror_peer_breaker_trips_total",
      help: "Peers that were left alone for a while after failures",
      registers,
    }),
    dialFailures: new Counter({
      name: "p2p_mirror_peer_dial_failures_total",
      help: "Connections to peers that failed, by reason (timeout, refused, tls, wrong-identity, other)",
      labelNames: ["reason"],
      registers,
    }),
  };
}
