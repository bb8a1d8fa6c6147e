import { systemClock, type Logger } from "@p2p-mirror/shared";
import type { Registry } from "prom-client";
import type { MirrorConfig } from "./config/mirror-config.ts";
import type { KadRouter } from "./routing/kad-router.ts";
import { createSwarmCodec } from "./swarm/codec.ts";
import { createLibp2pWire } from "./swarm/libp2p-wire.ts";
import { createSwarmMetrics } from "./swarm/metrics.ts";
import { createSwarm, type MirrorSwarm } from "./swarm/mirror-swarm.ts";
import { createPieceSigner } from "./swarm/piece-signer.ts";
import type { Identity } from "./trust/identity.ts";

export interface DaemonSwarmDeps {
  readonly router: KadRouter;
  readonly identity: Identity;
  /** Share of the upload slots that are busy, 0 to 1. */
  readonly load: () => number;
  readonly logger: Logger;
  readonly metrics: Registry;
}

/** A part of the composition root: the swarm of a daemon, over the streams of its router. */
export function daemonSwarm(
  { zone, maxUpstreamFetchers }: MirrorConfig,
  { router, identity, load, logger, metrics }: DaemonSwarmDeps,
): MirrorSwarm {
  return createSwarm(
    { zone, maxUpstreamFetchers },
    {
      self: { peer: router.self, contact: { id: identity.id, ...router.libp2pAddress } },
      wire: createLibp2pWire({
        streams: router.streams,
        codec: createSwarmCodec(),
        clock: systemClock,
        logger,
      }),
      closest: (key, count) => router.closest(key, count),
      clock: systemClock,
      random: Math.random,
      signer: createPieceSigner(identity),
      load,
      logger,
      metrics: createSwarmMetrics(metrics),
    },
  );
}
