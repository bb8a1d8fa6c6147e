import { formatContentRange, readRange, type Digest } from "@p2p-mirror/shared";
import type { ServedOutcome } from "./metrics.ts";
import { answer, serveBody, type PeerCall, type ServeDeps } from "./serve-body.ts";

/** `GET` and `HEAD` of a blob. */
export async function serveBlob(call: PeerCall, digest: Digest, deps: ServeDeps): Promise<ServedOutcome> {
  const { request, response, signal } = call;
  const blob = await deps.local.blob(digest, { signal });
  if (blob === undefined) {
    answer(response, 404);
    return "not-found";
  }
  if (request.method === "HEAD") {
    response.writeHead(200, { "content-length": blob.size }).end();
    return "complete";
  }
  const asked = readRange(request.headers.range, blob.size);
  if (asked.kind === "unsatisfiable") {
    response.setHeader("content-range", `bytes */${blob.size}`);
    answer(response, 416);
    return "refused";
  }
  const part = asked.kind === "part" ? asked.range : undefined;
  const range = part ?? { start: 0, end: blob.size };
  const length = range.end - range.start;
  const outcome = await serveBody(
    call,
    {
      digest,
      status: part === undefined ? 200 : 206,
      headers: part === undefined ? {} : { "content-range": formatContentRange(part, blob.size) },
      length,
      open: (options) => blob.open(range, options),
    },
    deps,
  );
  if (outcome === "complete" && length === blob.size) deps.handedOut?.(digest, call.peer);
  return outcome;
}
