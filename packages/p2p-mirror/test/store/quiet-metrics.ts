import type { StoreMetrics } from "../../src/store/metrics.ts";

const nothing = (): void => undefined;

/** Counts nothing, and loads nothing: for the children of the crash test, which live for milliseconds. */
export function quietMetrics(): StoreMetrics {
  return {
    bytes: { set: nothing },
    blobs: { set: nothing },
    limitBytes: { set: nothing },
    evicted: nothing,
    corrupt: { inc: nothing },
    diskFull: { inc: nothing },
    ingestFailed: nothing,
    indexErrors: { inc: nothing },
    scrubbedBytes: { inc: nothing },
  };
}
