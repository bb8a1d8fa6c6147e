import { linkSignal, type Clock } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import type { MirrorSources } from "./mirror-sources.ts";
import type { PeerClient } from "./peer-client.ts";
import { SMALL_KINDS, type SmallObject, type SmallRequest } from "./small-request.ts";
import type { Source } from "./source.ts";
import { readWhole } from "./whole.ts";

/** A peer that has not given an object by then is not waited for; the next source is asked. */
const PEER_DEADLINE_MS = 2_000;

/** Somewhere a small object comes from, all of it at once. */
export interface SmallSource extends Source {
  /** Its digest is right. @throws NotFoundError, SourceError, IntegrityError, TooLargeError */
  fetch(signal: AbortSignal): Promise<SmallObject>;
}

export function upstreamSource({ origin, upstream }: SmallRequest): SmallSource {
  return {
    kind: "upstream",
    id: `${origin.registry}/${origin.repository}`,
    available: true,
    fetch: async (signal) => ({ ...(await upstream(signal)), source: "upstream" }),
    refuted: () => undefined,
  };
}

export interface PeerSourceDeps {
  readonly sources: MirrorSources;
  readonly peerClient: Pick<PeerClient, "blob">;
  readonly clock: Clock;
}

export function peerSource(
  peer: Peer,
  { digest, kind }: Pick<SmallRequest, "digest" | "kind">,
  { sources, peerClient, clock }: PeerSourceDeps,
): SmallSource {
  return {
    kind: "peer",
    id: peer.id,
    peer,
    available: true,
    fetch: async (signal) => {
      using patience = linkSignal([signal]);
      const tooLate = new DOMException(`not here after ${PEER_DEADLINE_MS} ms`, "TimeoutError");
      const cancel = clock.after(PEER_DEADLINE_MS, () => patience.abort(tooLate));
      try {
        const { size, body } = await peerClient.blob(peer, digest, undefined, { signal: patience.signal });
        const { limit } = SMALL_KINDS[kind];
        return { bytes: await readWhole(body, digest, { size, limit, source: peer.id }), source: "peer" };
      } finally {
        cancel();
      }
    },
    refuted: () => sources.refute(peer),
  };
}
