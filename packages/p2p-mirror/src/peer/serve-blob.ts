import type { IncomingMessage, ServerResponse } from "node:http";
import type { Readable } from "node:stream";
import {
  formatContentRange,
  IntegrityError,
  NotFoundError,
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
  readonly metrics: PeerMetrics;
  readonly readerStallMs: number;
}

/** So short a body (a manifest, a config) is not refused because layers take all slots: it is gone at once. */
const NO_SLOT_BYTES = 64 * 1024;

/** Answers without a body worth a slot. */
export function answer(response: ServerResponse, status: number, body = ""): void {
  response.writeHead(status, { "content-length": Buffer.byteLength(body) }).end(body);
}

async function* from(iterator: AsyncIterator<Uint8Array>, first: Uint8Array): AsyncIterable<Uint8Array> {
  yield first;
  for (;;) {
    const next = await iterator.next();
    if (next.done === true) return;
    yield next.value;
  }
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
  const slot = range.end - range.start <= NO_SLOT_BYTES ? { release: () => undefined } : deps.slots.take();
  if (slot === undefined) {
    answer(response, 503, formatBusy(deps.others(digest).filter((peer) => peer.id !== call.peer)));
    return "busy";
  }
  try {
    return await sendBody(call, blob, range, part, deps);
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
): Promise<ServedOutcome> {
  const { response, signal } = call;
  const length = range.end - range.start;
  let body: Readable | undefined;
  const onClose = (): void => void body?.destroy();
  try {
    body = await blob.open(range, { signal });
    // Errors come out of the iterator below; this one is for a body that is destroyed before it is read.
    body.on("error", () => undefined);
    response.on("close", onClose);
    const iterator: AsyncIterator<Uint8Array> = body[Symbol.asyncIterator]();
    // The head is sent with the first bytes: a blob that proves to be corrupt before that is simply not held.
    const first = await iterator.next();
    if (first.done === true && length > 0) throw new NotFoundError("BLOB_UNKNOWN", "a body without a byte");
    response.writeHead(part === undefined ? 200 : 206, {
      "content-length": length,
      ...(part === undefined ? {} : { "content-range": formatContentRange(part, blob.size) }),
    });
    const chunks = first.done === true ? from(iterator, new Uint8Array()) : from(iterator, first.value);
    const end = await pump(chunks, length, response, {
      readerStallMs: deps.readerStallMs,
      onBytes: (bytes) => deps.metrics.sentBytes.inc(bytes),
    });
    // FIN, after what is on its way: an RST could take away bytes that the reader has received but not yet read.
    if (end === "cut") response.socket?.destroySoon();
    return end;
  } catch (error) {
    if (response.closed) return "left";
    if (!(error instanceof NotFoundError || error instanceof IntegrityError)) throw error;
    answer(response, 404);
    return "not-found";
  } finally {
    response.off("close", onClose);
    body?.destroy();
  }
}
