import { Readable } from "node:stream";
import type { Digest } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import {
  receivePiece,
  type AskForPiece,
  type FetchPieceDeps,
  type PieceFetchOptions,
} from "./fetch-piece.ts";
import type { WantedPiece } from "./peer-client.ts";

/** A whole piece in memory, with the hash that somebody has signed. */
export interface HeldPiece {
  readonly peer: Peer;
  readonly bytes: Buffer;
}

/**
 * Brings one piece into memory, while another peer's bytes of it go into the spool.
 * @throws as receivePiece.
 */
export async function holdPiece(
  peer: Peer,
  digest: Digest,
  request: WantedPiece,
  options: PieceFetchOptions,
  deps: Pick<FetchPieceDeps, "ask" | "hashes">,
): Promise<HeldPiece> {
  const bytes = Buffer.allocUnsafe(request.length);
  await receivePiece(peer, digest, request, options, deps, (recycle) => ({
    take: (chunk, at) => {
      chunk.copy(bytes, at);
      recycle(chunk);
      return undefined;
    },
  }));
  return { peer, bytes };
}

/** As if its peer were asked for it now. */
export const fromMemory =
  ({ bytes }: HeldPiece): AskForPiece =>
  async () => ({ body: Readable.from([bytes]), hash: undefined });
