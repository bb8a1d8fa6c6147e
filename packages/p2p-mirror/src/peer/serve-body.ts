import type { IncomingMessage, ServerResponse } from "node:http";
import type { Readable } from "node:stream";
import {
  IntegrityError,
  linkSignal,
  NotFoundError,
  raceSignal,
  type Digest,
  type RateLimit,
} from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import type { ContentOptions, LocalContent } from "../transfer/content.ts";
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

export interface ServeDeps {
  readonly local: LocalContent;
  readonly slots: UploadSlots;
  readonly limit?: RateLimit | undefined;
  /** Other nodes that hold it, for a busy answer. */
  readonly others: (digest: Digest) => readonly Peer[];
  readonly handedOut?: (digest: Digest, peerId: string) => void;
  readonly metrics: PeerMetrics;
  readonly readerStallMs: number;
  /** See PeerServerOptions. */
  readonly openMs: number;
}

/** What is sent, of the blob `digest`. */
export interface ServedBody {
  readonly digest: Digest;
  readonly status: 200 | 206;
  readonly headers: Readonly<Record<string, string>>;
  /** In bytes. */
  readonly length: number;
  open(options: ContentOptions): Promise<Readable>;
}

/** So short a body (a manifest, a config, what is fetched in one request) is not refused because layers take all slots. */
const NO_SLOT_BYTES = 1024 * 1024;

/** Peers give a body up that brings less than 16 KiB in 1.5 s while somebody else has it. */
const MAX_ROUND_MS = 750;

/** Answers without a body worth a slot. */
export function answer(response: ServerResponse, status: number, body = ""): void {
  response.writeHead(status, { "content-length": Buffer.byteLength(body) }).end(body);
}

/** Names these instead, without the asker itself. */
export function answerBusy(call: PeerCall, others: readonly Peer[]): "busy" {
  answer(call.response, 503, formatBusy(others.filter((peer) => peer.id !== call.peer)));
  return "busy";
}

/** Resolves when the answer has ended, whichever way; the slot is free again then. */
export async function serveBody(call: PeerCall, body: ServedBody, deps: ServeDeps): Promise<ServedOutcome> {
  const isShort = body.length <= NO_SLOT_BYTES;
  // By turns so far apart even a short one would look dead to its reader. What fits into a turn or two goes anyway.
  const { limit } = deps;
  const turnsAway = limit !== undefined && limit.roundMs > MAX_ROUND_MS && body.length > 2 * limit.quantum;
  if (isShort && turnsAway) return answerBusy(call, deps.others(body.digest));
  const slot = isShort ? { release: () => undefined } : deps.slots.take();
  if (slot === undefined) return answerBusy(call, deps.others(body.digest));
  try {
    const outcome = await sendBody(call, body, deps);
    return outcome === "not-yet" ? answerBusy(call, deps.others(body.digest)) : outcome;
  } finally {
    slot.release();
  }
}

async function sendBody(
  { response, signal }: PeerCall,
  served: ServedBody,
  deps: ServeDeps,
): Promise<ServedOutcome | "not-yet"> {
  try {
    const body = await within(deps.openMs, signal, (waiting) => served.open({ signal: waiting }), destroy);
    if (body === "not-yet") return response.closed ? "left" : "not-yet";
    if (response.closed) {
      destroy(body);
      return "left";
    }
    const end = await pump(body, served.length, response, {
      readerStallMs: deps.readerStallMs,
      onHead: () => {
        response.writeHead(served.status, { "content-length": served.length, ...served.headers });
      },
      onBytes: (bytes) => deps.metrics.sentBytes.inc(bytes),
      limit: deps.limit,
    });
    // FIN, after what is on its way: an RST could take away bytes that the reader has received but not yet read.
    if (end === "cut") response.socket?.destroySoon();
    return end;
  } catch (error) {
    if (response.closed) return "left";
    // What proves to be corrupt or gone before its first byte is simply not held.
    if (!(error instanceof NotFoundError || error instanceof IntegrityError)) throw error;
    answer(response, 404);
    return "not-found";
  }
}

const destroy = (body: Readable): void => void body.on("error", () => undefined).destroy();

/**
 * What `work` gives, or "not-yet" when it takes longer: a store goes on hashing what it was asked for, and is asked
 * again. What comes after all is given to `late`.
 */
export async function within<T>(
  ms: number,
  signal: AbortSignal,
  work: (signal: AbortSignal) => Promise<T>,
  late: (result: T) => void = () => undefined,
): Promise<T | "not-yet"> {
  const tooLate = new DOMException(`not ready within ${ms} ms`, "TimeoutError");
  const wait = linkSignal([signal], ms, () => tooLate);
  const working = work(wait.signal);
  try {
    return await raceSignal(working, wait.signal);
  } catch (error) {
    working.then(late, () => undefined);
    if (wait.signal.reason === tooLate) return "not-yet";
    throw error;
  } finally {
    wait.release();
  }
}
