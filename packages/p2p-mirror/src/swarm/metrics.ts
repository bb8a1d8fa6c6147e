import { Counter, Gauge, type Registry } from "prom-client";

export type SwarmMetrics = ReturnType<typeof createSwarmMetrics>;

export function createSwarmMetrics(registry: Registry) {
  const registers = [registry];
  return {
    messages: new Counter({
      name: "p2p_mirror_swarm_messages_total",
      help: "Control messages of the swarm.",
      labelNames: ["direction", "kind"],
      registers,
    }),
    rooms: new Gauge({
      name: "p2p_mirror_swarm_rooms",
      help: "Blobs whose swarm this node coordinates.",
      registers,
    }),
    memberships: new Gauge({
      name: "p2p_mirror_swarm_memberships",
      help: "Swarms this node is a member of.",
      registers,
    }),
    coordinatorsLost: new Counter({
      name: "p2p_mirror_swarm_coordinators_lost_total",
      help: "Coordinators that did not answer (any more).",
      registers,
    }),
    alone: new Counter({
      name: "p2p_mirror_swarm_alone_total",
      help: "Times a fetch went on without a coordinator.",
      registers,
    }),
    refusedHashes: new Counter({
      name: "p2p_mirror_swarm_hashes_refused_total",
      help: "Piece hashes whose signature was not valid, or whose signer is banned.",
      registers,
    }),
    bannedSigners: new Gauge({
      name: "p2p_mirror_swarm_signers_banned",
      help: "1 for each of the 32 peers whose piece hashes were refuted last by the digest of a blob, until a restart.",
      labelNames: ["peer"] as const,
      registers,
    }),
  };
}
