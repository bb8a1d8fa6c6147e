/** Rates in bytes of payload per second. */
export interface Links {
  /** Out of upstream, for all together. */
  readonly upstream: number;
  /** Of each node, into the network and out of it. */
  readonly egress: number;
  readonly ingress: number;
  /** From upstream to one node, where that path is thinner than the node's link. */
  readonly wan?: number | undefined;
}

/** Of a full Ethernet frame (1,514 bytes) that much is TCP payload, with timestamps: what a link's rate is worth. */
const PAYLOAD_SHARE = 1448 / 1514;

export const payloadRate = (megabits: number): number => ((megabits * 1e6) / 8) * PAYLOAD_SHARE;

/**
 * Seconds below which nobody can bring `size` bytes to `pullers` nodes that begin at once, where `holders` more nodes
 * have them already. Nodes are equal, the network between them is not the limit:
 *
 * - One copy at least leaves upstream, through its link and through the paths to the nodes, which may share the work:
 *   S / min(U, n u). Holders take its place, and upstream may help them: n S / ((n + h) p + U).
 * - Each node takes in its copy: S / d.
 * - All but the first copy are sent by nodes: (n - 1) S / (n p).
 *
 * That is a fluid's bound. Pieces of which a node has one before it can pass it on add the time in which the first ones
 * spread: for M pieces, p = d = B and U >= B the best schedule takes (S / B) (1 + floor(log2 n) / M) (Mundinger, Weber
 * and Weiss, Journal of Scheduling, 2008). With 128 pieces of an image and 8 nodes that is 2.3 %, with U < B less; the
 * targets are set against the fluid's bound, which is the stricter one. Nor does it hold what is spent before the first
 * byte of a layer: resolving the tag, manifest, config.
 */
export function crowdBound(size: number, pullers: number, links: Links, holders = 0): number {
  const { egress, ingress } = links;
  const upstream = Math.min(links.upstream, pullers * (links.wan ?? links.upstream));
  const intake = size / ingress;
  if (holders > 0) return Math.max(intake, (pullers * size) / ((pullers + holders) * egress + upstream));
  return Math.max(size / upstream, intake, ((pullers - 1) * size) / (pullers * egress));
}

/** The same for nodes that all ask upstream and nobody else: what `direct` cannot beat. */
export function directBound(size: number, pullers: number, links: Links): number {
  const path = Math.min(links.ingress, links.wan ?? links.ingress);
  return Math.max((pullers * size) / links.upstream, size / path);
}
