import type { Closest } from "../../../packages/p2p-mirror/src/swarm/coordinator.ts";
import type { Swarm } from "../../../packages/p2p-mirror/src/swarm/swarm.ts";
import type { AskForPiece } from "../../../packages/p2p-mirror/src/transfer/fetch-piece.ts";

/** What a flight has of the swarm. */
export interface FlightPorts {
  readonly swarm: Swarm;
  readonly ask: AskForPiece;
}

/** What stands between the code under test and its ports: nothing, or what makes it wrong on purpose. */
export interface Changes {
  closest(closest: Closest): Closest;
  /** Called for each flight. */
  flight(ports: FlightPorts): FlightPorts;
}

export const NO_CHANGES: Changes = {
  closest: (closest) => closest,
  flight: (ports) => ports,
};
