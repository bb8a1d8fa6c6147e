import { createHash } from "node:crypto";
import {
  consume,
  IntegrityError,
  isRecycling,
  NotFoundError,
  SourceError,
  type Digest,
} from "@p2p-mirror/shared";
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

/** What becomes of the bytes of a piece, in order. */
interface PieceSink {
  /** A chunk, and where in the piece it begins. */
  take(chunk: Buffer, at: number): Promise<void> | undefined;
  /** No more come, whatever the reason; resolves when what came is where it belongs. */
  end?(): Promise<void>;
}

/**
 * One piece from a peer, as far as a body goes that is no longer than the piece.
 * @param openSink called when the peer has answered and somebody has signed a hash; chunks may be given to `recycle` when
 *   they are not needed any more
 * @returns its sha256, which is the one that a member has signed.
 * @throws IntegrityError: another hash, or nobody's word for it; SourceError, NotFoundError, BusyError of the peer.
 */
export async function receivePiece(
  peer: Peer,
  digest: Digest,
  request: WantedPiece,
  options: PieceFetchOptions,
  { ask, hashes }: Pick<FetchPieceDeps, "ask" | "hashes">,
  openSink: (recycle: (chunk: Buffer) => void) => PieceSink,
): Promise<Buffer> {
  const { piece, length } = request;
  const { body, hash: said } = await ask(peer, digest, request, options);
  // While the last bytes are written nobody listens; a body that fails then must not end the process.
  body.on("error", () => undefined);
  try {
    if (said !== undefined && said.piece === piece) hashes.learn(said);
    const expected = hashes.of(piece);
    if (expected === undefined && hashes.isDoubted(piece)) {
      // What it says counts when another one has said it, too: nothing is wrong with it.
      throw new NotFoundError(
        "BLOB_UNKNOWN",
        `piece ${piece} of ${digest}, by a hash that counts, at ${peer.id}`,
      );
    }
    if (expected === undefined) {
      // Maybe not its fault: nobody that is believed has signed it. But of no use here, and the coordinator must know.
      throw new IntegrityError("DIGEST_MISMATCH", `a signed hash of piece ${piece}`, "none", peer.id);
    }
    const sink = openSink(isRecycling(body) ? (chunk) => body.recycle(chunk) : () => undefined);
    const sha256 = createHash("sha256");
    let received = 0;
    try {
      await consume(body, (chunk) => {
        options.signal.throwIfAborted();
        if (received + chunk.length > length)
          throw new SourceError("STATUS", peer.id, { message: "more than the piece" });
        sha256.update(chunk);
        const at = received;
        received += chunk.length;
        const more = (): boolean => received < length;
        return sink.take(chunk, at)?.then(more) ?? more();
      });
    } finally {
      await sink.end?.();
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
    return found;
  } finally {
    body.destroy();
  }
}

/**
 * Brings one piece from a peer into the spool; it counts when its hash is the one that a member has signed.
 * @returns its sha256.
 * @throws as receivePiece.
 */
export async function fetchPiece(
  peer: Peer,
  digest: Digest,
  request: WantedPiece,
  options: PieceFetchOptions,
  deps: FetchPieceDeps,
): Promise<Buffer> {
  const { pieces, accepted } = deps;
  const { piece } = request;
  const start = pieces.geometry.start(piece);
  const before = createHash("sha256");
  let filled = start;
  const found = await receivePiece(peer, digest, request, options, deps, (recycle) => {
    accepted();
    // What is here of it already may be being read: only the rest is written.
    filled = pieces.filledTo(piece);
    const writer = new BatchWriter(filled, async (offset, chunks) => {
      await pieces.writeUnchecked(offset, chunks);
      for (const chunk of chunks) recycle(chunk);
    });
    return {
      take: (chunk, at) => {
        const known = Math.min(chunk.length, Math.max(0, filled - start - at));
        if (known > 0) before.update(chunk.subarray(0, known));
        if (known < chunk.length) return writer.add(chunk.subarray(known));
        recycle(chunk);
        return undefined;
      },
      end: () => writer.end(),
    };
  });
  if (filled > start && !before.digest().equals(await pieces.hashFrom(start, filled))) {
    // What was here is wrong, not what came: all of it comes again.
    pieces.restart(piece);
    throw new SourceError("CUT", peer.id, { message: "the beginning of the piece was another" });
  }
  pieces.take(piece, found);
  return found;
}
