import type { ServedOutcome } from "./metrics.ts";
import { formatHash, HASH_HEADER, type PieceAddress } from "./protocol.ts";
import { answer, answerBusy, serveBody, within, type PeerCall, type ServeDeps } from "./serve-body.ts";

/** `GET` of one piece. */
export async function servePiece(
  call: PeerCall,
  { digest, size, piece }: PieceAddress,
  deps: ServeDeps,
): Promise<ServedOutcome> {
  const { response, signal } = call;
  // A piece may have to be hashed first, behind others.
  const here = await within(deps.openMs, signal, (waiting) =>
    deps.local.piece(digest, size, piece, { signal: waiting }),
  );
  if (here === "not-yet") return answerBusy(call, deps.others(digest));
  if (here === undefined) {
    answer(response, 404);
    return "not-found";
  }
  const headers = { [HASH_HEADER]: formatHash(here.hash) };
  const { length } = here;
  return serveBody(
    call,
    { digest, status: 200, headers, length, open: (options) => here.open(options) },
    deps,
  );
}
