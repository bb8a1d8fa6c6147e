import type { AskForPiece } from "../../../packages/p2p-mirror/src/transfer/fetch-piece.ts";
import type { Closest } from "../../../packages/p2p-mirror/src/swarm/coordinator.ts";
import type { Swarm } from "../../../packages/p2p-mirror/src/swarm/swarm.ts";

/** What stands between the code under test and its ports: nothing, or what makes it wrong on purpose. */
export interface Changes {
  closest(closest: Closest): Closest;
  swarm(swarm: Swarm): Swarm;
  ask(ask: AskForPiece): AskForPiece;
}

export const NO_CHANGES: Changes = {
  closest: (closest) => closest,
  swarm: (swarm) => swarm,
  ask: (ask) => ask,
};
