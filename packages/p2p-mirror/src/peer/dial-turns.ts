import type { buildConnector } from "undici";

/**
 * Connections to one peer are made one after the other. Handshakes side by side only make each other late, on this node
 * and on the peer; where processors are scarce none is done in time. When one fails, those that wait for their turn fail
 * with it: several ways to a dead peer cost one timeout, not one after the other.
 */
export function inTurns(connect: buildConnector.connector): buildConnector.connector {
  const waiting: Parameters<buildConnector.connector>[] = [];
  let busy = false;
  const dial = (...[options, callback]: Parameters<buildConnector.connector>): void => {
    busy = true;
    connect(options, (...outcome) => {
      busy = false;
      const failed = outcome[0] !== null;
      const others = failed ? waiting.splice(0) : [];
      const next = waiting.shift();
      if (next !== undefined) dial(...next);
      callback(...outcome);
      for (const [, give] of others) give(...outcome);
    });
  };
  return (options, callback) => (busy ? void waiting.push([options, callback]) : dial(options, callback));
}
