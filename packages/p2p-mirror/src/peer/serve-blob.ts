import type { Readable } from "node:stream";
import type { IncomingMessage, ServerResponse } from "node:http";
import {
  formatContentRange,
  IntegrityError,
  linkSignal,
  NotFoundError,
  raceSignal,
  readRange,
  type ByteRange,
  type Digest,
} from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import type { BlobContent, LocalContent } from "../transfer/content.ts";
import type { PeerMetrics, ServedOutcome } from "./metrics.ts";
import { formatBusy } from "./protocol.ts";
import { pump } from "./pump.ts";
import type { UploadSlots } from "./upload-slots.ts";

/** A peer's request, once it is known who asks. */
export interface PeerCall {
  readonly peer: string;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** Aborts when the connection is gone. */
  readonly signal: AbortSignal;
}

export interface ServeBlobDeps {
  readonly local: LocalContent;
  readonly slots: UploadSlots;
  /** Other nodes that hold it, for a busy answer. */
  readonly others: (digest: Digest) => readonly Peer[];
  readonly handedOut?: (digest: Digest, peerId: string) => void;
  readonly metrics: PeerMetrics;
  readonly readerStallMs: number;
  /** See PeerServerOptions. */
  readonly openMs: number;
}

/** So short a body (a manifest, a config, what is fetched in one request) is not refused because layers take all slots. */
const NO_SLOT_BYTES = 1024 * 1024;

/** Answers without a body worth a slot. */
export function answer(response: ServerResponse, status: number, body = ""): void {
  response.writeHead(status, { "content-length": Buffer.byteLength(body) }).end(body);
}

/** `GET` and `HEAD` of a blob. Resolves when the answer has ended, whichever way; the slot is free again then. */
export async function serveBlob(call: PeerCall, digest: Digest, deps: ServeBlobDeps): Promise<ServedOutcome> {
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
  const slot = length <= NO_SLOT_BYTES ? { release: () => undefined } : deps.slots.take();
  const busy = (): ServedOutcome => {
    answer(response, 503, formatBusy(deps.others(digest).filter((peer) => peer.id !== call.peer)));
    return "busy";
  };
  if (slot === undefined) return busy();
  try {
    const outcome = await sendBody(call, blob, range, part, deps);
    if (outcome === "not-yet") return busy();
    if (outcome === "complete" && length === blob.size) deps.handedOut?.(digest, call.peer);
    return outcome;
  } finally {
    slot.release();
  }
}

async function sendBody(
  call: PeerCall,
  blob: BlobContent,
  range: ByteRange,
  part: ByteRange | undefined,
  deps: ServeBlobDeps,
): Promise<ServedOutcome | "not-yet"> {
  const { response, signal } = call;
  const length = range.end - range.start;
  try {
    const body = await openWithin(deps.openMs, blob, range, signal);
    if (body === undefined) return response.closed ? "left" : "not-yet";
    if (response.closed) {
      body.on("error", () => undefined).destroy();
      return "left";
    }
    const end = await pump(body, length, response, {
      readerStallMs: deps.readerStallMs,
      onHead: () => {
        response.writeHead(part === undefined ? 200 : 206, {
          "content-length": length,
          ...(part === undefined ? {} : { "content-range": formatContentRange(part, blob.size) }),
        });
      },
      onBytes: (bytes) => deps.metrics.sentBytes.inc(bytes),
    });
    // FIN, after what is on its way: an RST could take away bytes that the reader has received but not yet read.
    if (end === "cut") response.socket?.destroySoon();
    return end;
  } catch (error) {
    if (response.closed) return "left";
    // A blob that proves to be corrupt or gone before its first byte is simply not held.
    if (!(error instanceof NotFoundError || error instanceof IntegrityError)) throw error;
    answer(response, 404);
    return "not-found";
  }
}

/**
 * The body, or undefined when its store takes longer: it goes on hashing what it was asked for, and is asked again. A body
 * that comes after all is destroyed.
 */
async function openWithin(
  ms: number,
  blob: BlobContent,
  range: ByteRange,
  signal: AbortSignal,
): Promise<Readable | undefined> {
  const tooLate = new DOMException(`not open within ${ms} ms`, "TimeoutError");
  const wait = linkSignal([signal], ms, () => tooLate);
  const opening = blob.open(range, { signal: wait.signal });
  try {
    return await raceSignal(opening, wait.signal);
  } catch (error) {
    opening.then(
      (late) => late.on("error", () => undefined).destroy(),
      () => undefined,
    );
    if (wait.signal.reason === tooLate) return undefined;
    throw error;
  } finally {
    wait.release();
  }
}
