import { BATCH_BYTES } from "../../../packages/p2p-mirror/src/transfer/batch-writer.ts";
import { CHUNK_BYTES } from "./bodies.ts";
import { BUFFERED } from "./flow-body.ts";
import type { World } from "./world.ts";

/** Bodies that a flight may have open: sources, leases that begin before others have ended, pieces of six neighbours. */
const MOST_BODIES = 4 + 8 + 12;
/** Of each there is a batch that is written, one that is gathered, and what the connection buffers; each ends with a whole chunk. */
const MOST_OF_ONE = 2 * (BATCH_BYTES + CHUNK_BYTES) + BUFFERED + CHUNK_BYTES;

/** What a flight may have in memory is so much of each of so many bodies. More than that, or undefined. */
export function tooMuchInMemory({ nodes }: World): string | undefined {
  for (const { id, mostBodies, mostInMemory } of nodes) {
    if (mostBodies > MOST_BODIES) return `${id} had ${mostBodies} bodies open`;
    if (mostInMemory > MOST_OF_ONE) return `${id} had ${mostInMemory} bytes of one body in memory`;
  }
  return undefined;
}
