import { createHash } from "node:crypto";
import { consume, IntegrityError, isRecycling, SourceError, type Digest } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import type { KnownHashes } from "../swarm/swarm.ts";
import { BatchWriter } from "./batch-writer.ts";
import type { FlightPieces } from "./flight-pieces.ts";
import type { PeerPiece, WantedPiece } from "./peer-client.ts";

export interface PieceFetchOptions {
  readonly signal: AbortSignal;
  /** See PeerOptions. */
  readonly stallMs: number;
  readonly firstByteMs: number;
}

/** Port: one piece of a blob from a peer that has it, of a whole blob or of one that it is fetching itself. */
export type AskForPiece = (
  peer: Peer,
  digest: Digest,
  request: WantedPiece,
  options: PieceFetchOptions,
) => Promise<Pick<PeerPiece, "body" | "hash">>;

export interface FetchPieceDeps {
  readonly ask: AskForPiece;
  readonly hashes: KnownHashes;
  readonly pieces: FlightPieces;
  /** The peer has answered with a body. */
  readonly accepted: () => void;
}

/**
 * Brings one piece from a peer into the spool; it counts when its hash is the one that a member has signed.
 * @returns its sha256.
 * @throws IntegrityError: another hash, or nobody's word for it; SourceError, NotFoundError, BusyError of the peer.
 */
export async function fetchPiece(
  peer: Peer,
  digest: Digest,
  request: WantedPiece,
  options: PieceFetchOptions,
  { ask, hashes, pieces, accepted }: FetchPieceDeps,
): Promise<Buffer> {
  const { piece, length } = request;
  const { body, hash: said } = await ask(peer, digest, request, options);
  // While the last bytes are written nobody listens; a body that fails then must not end the process.
  body.on("error", () => undefined);
  try {
    if (said !== undefined && said.piece === piece) hashes.learn(said);
    const expected = hashes.of(piece);
    if (expected === undefined) {
      // Maybe not its fault: nobody that is believed has signed it. But of no use here, and the coordinator must know.
      throw new IntegrityError("DIGEST_MISMATCH", `a signed hash of piece ${piece}`, "none", peer.id);
    }
    accepted();
    const start = pieces.geometry.start(piece);
    // What is here of it already may be being read: only the rest is written.
    const filled = pieces.filledTo(piece);
    const before = createHash("sha256");
    const recycle = isRecycling(body) ? (chunk: Buffer) => body.recycle(chunk) : undefined;
    const writer = new BatchWriter(filled, async (offset, chunks) => {
      await pieces.writeUnchecked(offset, chunks);
      for (const chunk of chunks) recycle?.(chunk);
    });
    const sha256 = createHash("sha256");
    let received = 0;
    try {
      await consume(body, (chunk) => {
        options.signal.throwIfAborted();
        if (received + chunk.length > length)
          throw new SourceError("STATUS", peer.id, { message: "more than the piece" });
        sha256.update(chunk);
        const known = Math.min(chunk.length, Math.max(0, filled - start - received));
        received += chunk.length;
        const more = (): boolean => received < length;
        if (known > 0) before.update(chunk.subarray(0, known));
        if (known === chunk.length) {
          recycle?.(chunk);
          return more();
        }
        return writer.add(chunk.subarray(known))?.then(more) ?? more();
      });
    } finally {
      await writer.end();
    }
    if (received < length) throw new SourceError("CUT", peer.id, { message: `${received} bytes of a piece` });
    const found = sha256.digest();
    if (!found.equals(expected.sha256)) {
      throw new IntegrityError(
        "DIGEST_MISMATCH",
        Buffer.from(expected.sha256).toString("hex"),
        found.toString("hex"),
        peer.id,
      );
    }
    if (filled > start && !before.digest().equals(await pieces.hashFrom(start, filled))) {
      // What was here is wrong, not what came: all of it comes again.
      pieces.restart(piece);
      throw new SourceError("CUT", peer.id, { message: "the beginning of the piece was another" });
    }
    pieces.take(piece, found);
    return found;
  } finally {
    body.destroy();
  }
}
