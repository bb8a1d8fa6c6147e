import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { consume, IntegrityError, isRecycling, SourceError, type Digest } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import type { AskForPiece, FetchPieceDeps, PieceFetchOptions } from "./fetch-piece.ts";
import type { WantedPiece } from "./peer-client.ts";

/** A whole piece in memory, with the hash that somebody has signed. */
export interface HeldPiece {
  readonly peer: Peer;
  readonly bytes: Buffer;
}

/**
 * Brings one piece into memory, while another peer's bytes of it go into the spool.
 * @throws as fetchPiece.
 */
export async function holdPiece(
  peer: Peer,
  digest: Digest,
  request: WantedPiece,
  options: PieceFetchOptions,
  { ask, hashes }: Pick<FetchPieceDeps, "ask" | "hashes">,
): Promise<HeldPiece> {
  const { piece, length } = request;
  const { body, hash: said } = await ask(peer, digest, request, options);
  body.on("error", () => undefined);
  try {
    if (said !== undefined && said.piece === piece) hashes.learn(said);
    const bytes = Buffer.allocUnsafe(length);
    let received = 0;
    await consume(body, (chunk) => {
      options.signal.throwIfAborted();
      if (received + chunk.length > length)
        throw new SourceError("STATUS", peer.id, { message: "more than the piece" });
      received += chunk.copy(bytes, received);
      if (isRecycling(body)) body.recycle(chunk);
      return received < length;
    });
    if (received < length) throw new SourceError("CUT", peer.id, { message: `${received} bytes of a piece` });
    const expected = hashes.of(piece)?.sha256;
    const found = createHash("sha256").update(bytes).digest();
    if (expected === undefined || !found.equals(expected)) {
      const wanted = expected === undefined ? "a signed hash" : Buffer.from(expected).toString("hex");
      throw new IntegrityError("DIGEST_MISMATCH", wanted, found.toString("hex"), peer.id);
    }
    return { peer, bytes };
  } finally {
    body.destroy();
  }
}

/** As if its peer were asked for it now. */
export const fromMemory =
  ({ bytes }: HeldPiece): AskForPiece =>
  async () => ({ body: Readable.from([bytes]), hash: undefined });
