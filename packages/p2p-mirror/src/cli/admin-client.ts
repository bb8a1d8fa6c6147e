import { linkSignal } from "@p2p-mirror/shared/abort";
import { isMirrorStatus } from "../status-shape.ts";
import type { MirrorStatus } from "../status.ts";
import { CommandFailure } from "./failure.ts";

/** A mirror answers from memory, in milliseconds. */
const TIMEOUT_MS = 10_000;
/** A thousand images and peers have less than one. */
const MAX_STATUS_BYTES = 64 * 1024 * 1024;

/** Asks a mirror's admin endpoint. @throws CommandFailure that says what to do */
export async function fetchStatus(adminUrl: string, signal: AbortSignal): Promise<MirrorStatus> {
  const answer = await get(`${adminUrl}/status`, adminUrl, signal);
  if (!isMirrorStatus(answer)) throw isStarting(answer) ? starting(adminUrl) : notAMirror(adminUrl);
  return answer;
}

/** The admin endpoint listens first; before the rest does, it has nothing to say. */
const isStarting = (answer: unknown): boolean =>
  typeof answer === "object" && answer !== null && !Array.isArray(answer) && Object.keys(answer).length === 0;

const starting = (url: string): CommandFailure =>
  new CommandFailure(`the mirror at ${url} is starting; ask again in a moment`);

const notAMirror = (url: string, cause?: unknown): CommandFailure =>
  new CommandFailure(
    `what answers at ${url} is no admin endpoint of this version of p2p-mirror; give --admin URL`,
    {
      cause,
    },
  );

async function get(url: string, adminUrl: string, signal: AbortSignal): Promise<unknown> {
  using linked = linkSignal([signal], TIMEOUT_MS);
  let response: Response;
  try {
    response = await fetch(url, { signal: linked.signal, redirect: "error" });
  } catch (error) {
    signal.throwIfAborted();
    const text = `no mirror answers at ${adminUrl}; start one with p2p-mirror serve, or give --admin URL`;
    throw new CommandFailure(text, { cause: error });
  }
  if (!response.ok) {
    await response.body?.cancel();
    throw notAMirror(adminUrl);
  }
  try {
    return JSON.parse(await readText(response, MAX_STATUS_BYTES));
  } catch (error) {
    signal.throwIfAborted();
    throw notAMirror(adminUrl, error);
  }
}

async function readText(response: Response, limit: number): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.byteLength;
    if (size > limit) throw new RangeError(`more than ${limit} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
