import type { ServerResponse } from "node:http";
import { ProgressWatch } from "./progress.ts";

export interface PumpOptions {
  /** The reader must take one write (256 KiB) within this many milliseconds. */
  readonly readerStallMs: number;
  readonly onBytes: (bytes: number) => void;
}

export type PumpEnd = "complete" | "cut" | "stalled" | "left";

/**
 * Bytes handed to TLS at once. A write is the unit in which a slow reader's progress shows, and 16 records of TLS are
 * enough to keep the socket full.
 */
const WRITE_BYTES = 256 * 1024;

/** Resolves when the response takes more, or is closed. */
function ready(response: ServerResponse, event: "drain" | "finish"): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      response.off(event, done).off("close", done);
      resolve();
    };
    response.on(event, done).on("close", done);
  });
}

/**
 * Sends `chunks`, of exactly `length` bytes, and ends the response; the head is written already. Never throws: on any
 * other end than `complete` the connection is to be cut.
 */
export async function pump(
  chunks: AsyncIterable<Uint8Array>,
  length: number,
  response: ServerResponse,
  options: PumpOptions,
): Promise<PumpEnd> {
  let stalled = false;
  const watch = new ProgressWatch(options.readerStallMs, 1, () => {
    stalled = true;
    response.destroy();
  });
  const wait = async (event: "drain" | "finish"): Promise<void> => {
    watch.start();
    await ready(response, event);
    watch.stop();
  };
  const endOf = (otherwise: PumpEnd): PumpEnd => {
    if (stalled) return "stalled";
    return response.closed && !response.writableFinished ? "left" : otherwise;
  };
  let left = length;
  try {
    for await (const chunk of chunks) {
      // A source that has more than it said would break the framing of the answers after this one.
      if (chunk.byteLength > left) return endOf("cut");
      for (let at = 0; at < chunk.byteLength; at += WRITE_BYTES) {
        const part = chunk.subarray(at, at + WRITE_BYTES);
        const more = response.write(part);
        left -= part.byteLength;
        options.onBytes(part.byteLength);
        if (!more) await wait("drain");
        if (response.closed) return endOf("left");
      }
    }
  } catch {
    return endOf("cut");
  } finally {
    watch.stop();
  }
  if (left > 0) return endOf("cut");
  response.end();
  if (!response.writableFinished && !response.closed) await wait("finish");
  return endOf("complete");
}
