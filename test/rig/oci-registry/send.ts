import type { IncomingMessage, ServerResponse } from "node:http";
import { drained } from "../drained.ts";
import { resetSocket } from "../reset.ts";
import type { Fault, RecordedRequest } from "./faults.ts";

/** One request on its way through the registry. */
export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly record: RecordedRequest;
  readonly fault: Fault;
  /** Of the request, with the query. */
  readonly url: URL;
}

export interface Answer {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array | string;
  /** Honour a Range header (blobs). */
  readonly ranges?: boolean;
}

const CHUNK = 64 * 1024;
const RANGE = /^bytes=(\d*)-(\d*)$/;

/** `[start, end)` a Range header asks for; undefined: the whole; null: unsatisfiable. */
function wanted(header: string | undefined, size: number): readonly [number, number] | null | undefined {
  const match = header === undefined ? null : RANGE.exec(header);
  if (match === null) return undefined;
  const [, first = "", last = ""] = match;
  if (first === "") return last === "" ? undefined : [Math.max(0, size - Number(last)), size];
  if (Number(first) >= size) return null;
  return [Number(first), last === "" ? size : Math.min(size, Number(last) + 1)];
}

/** An OCI error answer (distribution spec 1.1, "Error Codes"). */
export function sendError(
  exchange: Exchange,
  status: number,
  code: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<void> {
  return send(exchange, {
    status,
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify({ errors: [{ code, message: code.toLowerCase() }] }),
  });
}

/** Answers with whatever the fault makes of it. Resolves when everything was handed to the socket. */
export async function send(exchange: Exchange, answer: Answer): Promise<void> {
  const { request, response, record, fault } = exchange;
  const whole = Buffer.from(answer.body ?? "");
  const range =
    answer.ranges === true && fault.ignoreRange !== true ? wanted(record.range, whole.length) : undefined;
  let status = answer.status ?? 200;
  let body = whole;
  const headers: Record<string, string> = { ...answer.headers };
  if (answer.ranges === true && fault.ignoreRange !== true) headers["accept-ranges"] = "bytes";
  if (range === null) {
    status = 416;
    body = Buffer.alloc(0);
    headers["content-range"] = `bytes */${whole.length}`;
  } else if (range !== undefined) {
    status = 206;
    body = whole.subarray(...range);
    const shift = fault.rangeShift ?? 0;
    headers["content-range"] = `bytes ${range[0] + shift}-${range[1] - 1 + shift}/${whole.length + shift}`;
  }
  if (fault.corruptAt !== undefined && fault.corruptAt < body.length) {
    body = Buffer.from(body);
    body[fault.corruptAt] = (body[fault.corruptAt] ?? 0) ^ 0xff;
  }
  if (fault.withoutDigest === true) delete headers["docker-content-digest"];
  if (fault.claimDigest !== undefined) headers["docker-content-digest"] = fault.claimDigest;
  if (fault.chunked !== true) headers["content-length"] = String(body.length + (fault.lengthDelta ?? 0));
  Object.assign(headers, fault.headers);
  record.status = status;
  response.writeHead(status, headers);
  if (request.method === "HEAD") {
    response.end();
    return;
  }
  await sendBytes(exchange, body);
}

async function sendBytes({ response, record, fault }: Exchange, body: Buffer): Promise<void> {
  const stop = Math.min(
    fault.stallAfter ?? Infinity,
    fault.cutAfter ?? Infinity,
    fault.resetAfter ?? Infinity,
  );
  const end = Math.min(body.length, stop);
  response.flushHeaders();
  for (let at = 0; at < end; at += CHUNK) {
    const chunk = body.subarray(at, Math.min(end, at + CHUNK));
    record.bytesSent += chunk.length;
    if (!response.write(chunk)) await drained(response);
    if (response.destroyed) return;
  }
  if (stop === Infinity) {
    response.end();
    return;
  }
  if (fault.stallAfter === stop) return;
  // What was written before must have left, or the fault comes earlier than it was asked for.
  await new Promise<void>((resolve) => {
    if (!response.write("", () => resolve())) resolve();
  });
  if (fault.cutAfter === stop) response.socket?.destroySoon();
  else if (response.socket !== null) resetSocket(response.socket);
}
