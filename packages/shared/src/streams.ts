import type { Readable } from "node:stream";

/** A byte stream as what it is: iterating a Readable is typed `any`. The stream must not have an encoding or objects. */
export function chunksOf(stream: Readable): AsyncIterable<Buffer> {
  return stream;
}
