import { Counter, Gauge, type Registry } from "prom-client";

/** Metrics of containerd's content store. `way` is `file` (read from the content directory) or `grpc`. */
export function createContainerdMetrics(registry: Registry) {
  const registers = [registry];
  return {
    reads: new Counter({
      name: "p2p_mirror_containerd_reads_total",
      help: "Reads of blobs from containerd's content store, by way: file or grpc",
      labelNames: ["way"],
      registers,
    }),
    up: new Gauge({
      name: "p2p_mirror_containerd_up",
      help: "1 while containerd is connected",
      registers,
    }),
    connects: new Counter({
      name: "p2p_mirror_containerd_connects_total",
      help: "Connections made to containerd; more than one means that it was lost and came back",
      registers,
    }),
    blobs: new Gauge({
      name: "p2p_mirror_containerd_blobs",
      help: "Blobs known to be held by containerd",
      registers,
    }),
    reconciles: new Counter({
      name: "p2p_mirror_containerd_reconciles_total",
      help: "Complete comparisons with containerd's list of content",
      registers,
    }),
    corrupt: new Counter({
      name: "p2p_mirror_containerd_corrupt_blobs_total",
      help: "Blobs of containerd that did not match their digest and are passed over since",
      registers,
    }),
  };
}

export type ContainerdMetrics = ReturnType<typeof createContainerdMetrics>;
