import { linkSignal, raceSignal, type Logger } from "@p2p-mirror/shared";
import type { Peer, Router, RoutingKey } from "../routing/router.ts";
import type { PeerClient } from "./peer-client.ts";
import type { HeardClaim, RecordSigner } from "./records.ts";

/** The client of the mirror waits for this, and upstream has kept it waiting before. */
const DEADLINE_MS = 3_000;
/** When the first claim is here, others get this long to be newer. */
const GRACE_MS = 500;
const MAX_PEERS = 16;

export interface CollectDeps {
  readonly router: Router;
  readonly peerClient: PeerClient;
  readonly records: RecordSigner;
  readonly logger: Logger;
}

/** Asks the nodes that have a record under `key` for it, all at once, and gives the claims that verify. Never throws. */
export async function collectClaims(
  key: RoutingKey,
  deps: CollectDeps,
  signal: AbortSignal,
): Promise<HeardClaim[]> {
  using deadline = linkSignal([signal], DEADLINE_MS);
  const claims: HeardClaim[] = [];
  const asking: Promise<void>[] = [];
  let grace: NodeJS.Timeout | undefined;
  const ask = async (peer: Peer): Promise<void> => {
    try {
      const record = await deps.peerClient.record(peer, key, { signal: deadline.signal });
      const claim = deps.records.verify(record);
      if (claim === undefined) return;
      claims.push({ claim, record });
      grace ??= setTimeout(() => deadline.abort(), GRACE_MS);
    } catch (error) {
      deps.logger.debug({ err: error, key, peer: peer.id }, "a peer gave no record");
    }
  };
  const peers = deps.router.find(key, { signal: deadline.signal })[Symbol.asyncIterator]();
  try {
    while (asking.length < MAX_PEERS) {
      const next = await raceSignal(peers.next(), deadline.signal);
      if (next.done === true) break;
      asking.push(ask(next.value));
    }
    await raceSignal(Promise.all(asking), deadline.signal);
  } catch (error) {
    if (!deadline.signal.aborted) deps.logger.debug({ err: error, key }, "the lookup of a record failed");
  } finally {
    clearTimeout(grace);
    // Ends the lookup where it did not end by itself.
    void peers.return?.().catch(() => undefined);
  }
  return claims;
}
