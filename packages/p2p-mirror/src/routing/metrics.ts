import { Counter, Gauge, Histogram, type Registry } from "prom-client";

export type RoutingMetrics = ReturnType<typeof createRoutingMetrics>;

/** Lookups answer within a millisecond from this node's own table, a few from the DHT; a dead peer costs up to a second. */
const LOOKUP_BUCKETS = [0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 3];

export function createRoutingMetrics(registry: Registry) {
  const registers = [registry];
  return {
    peers: new Gauge({
      name: "p2p_mirror_dht_peers",
      help: "Nodes of the cluster this one is connected to.",
      registers,
    }),
    recordsHeld: new Gauge({
      name: "p2p_mirror_dht_records_held",
      help: "Provider records of other nodes kept here.",
      registers,
    }),
    recordsAdvertised: new Gauge({
      name: "p2p_mirror_dht_records_advertised",
      help: "Digests and other keys this node says it has.",
      registers,
    }),
    blobsAdvertised: new Gauge({
      name: "p2p_mirror_advertised_blobs",
      help: "Blobs of this node's stores that the cluster was told of.",
      registers,
    }),
    recordsSent: new Counter({
      name: "p2p_mirror_dht_records_sent_total",
      help: "Provider records that other nodes confirmed, repetitions included.",
      registers,
    }),
    announceFailures: new Counter({
      name: "p2p_mirror_dht_announce_failures_total",
      help: "Messages with provider records that a node did not take.",
      registers,
    }),
    withdrawals: new Counter({
      name: "p2p_mirror_dht_withdrawals_total",
      help: "Provider records taken back at other nodes.",
      registers,
    }),
    rejectedMessages: new Counter({
      name: "p2p_mirror_dht_rejected_messages_total",
      help: "Messages of other nodes that were cut off: malformed, too long, or too slow.",
      registers,
    }),
    lookups: new Counter({
      name: "p2p_mirror_dht_lookups_total",
      help: "Lookups by outcome: the own table or memory knew, another node did, nobody did.",
      labelNames: ["result"] as const,
      registers,
    }),
    firstProvider: new Histogram({
      name: "p2p_mirror_dht_lookup_seconds",
      help: "Time to the first provider, or to the end of a lookup without one.",
      labelNames: ["result"] as const,
      buckets: LOOKUP_BUCKETS,
      registers,
    }),
  };
}
