import { Counter, Gauge, type Registry } from "prom-client";

export type TransferMetrics = ReturnType<typeof createTransferMetrics>;

/** What moves between this node, its peers and upstream. Label `source`: peer or upstream. */
export function createTransferMetrics(registry: Registry) {
  const registers = [registry];
  return {
    received: new Counter({
      name: "p2p_mirror_received_bytes_total",
      help: "Bytes of blobs and manifests fetched by this node, by where they came from.",
      labelNames: ["source"] as const,
      registers,
    }),
    flights: new Gauge({
      name: "p2p_mirror_flights",
      help: "Blobs being fetched now.",
      registers,
    }),
    hedges: new Counter({
      name: "p2p_mirror_piece_hedges_total",
      help: "Late pieces that were asked of a second peer, too, and whether it was first (won) or not (lost).",
      labelNames: ["outcome"] as const,
      registers,
    }),
    unstored: new Counter({
      name: "p2p_mirror_unstored_blobs_total",
      help: "Blobs that were fetched without being stored: cache off, blob too large, or disk full.",
      registers,
    }),
    refuted: new Counter({
      name: "p2p_mirror_refuted_peers_total",
      help: "Times a peer delivered bytes that are not what their digest says.",
      registers,
    }),
    staleServes: new Counter({
      name: "p2p_mirror_stale_tag_answers_total",
      help: "Tags answered from a record of the cluster because upstream could not be asked.",
      registers,
    }),
  };
}
