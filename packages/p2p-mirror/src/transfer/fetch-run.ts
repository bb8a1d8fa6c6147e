import { chunksOf, IntegrityError, SourceError, type ByteRange } from "@p2p-mirror/shared";
import { BatchWriter, type BatchTarget } from "./batch-writer.ts";
import type { BlobSource } from "./source.ts";

export interface RunTarget extends BatchTarget {
  /** Where the run ends now; another source may have taken the rest over. */
  end(): number;
  /** The source has answered with a body. */
  accepted(): void;
}

/**
 * Brings `range` of a blob of `size` bytes from one source to the target, in order. Throws what the source throws;
 * SourceError `CUT` when it ends early; IntegrityError (`SIZE_MISMATCH`) when the source says the blob has another size.
 */
export async function fetchRun(
  source: BlobSource,
  range: ByteRange,
  size: number,
  target: RunTarget,
  options: { readonly signal: AbortSignal; readonly stallMs: number },
): Promise<void> {
  const { body, start, size: said } = await source.fetch(range, { ...options, size });
  try {
    if (said !== undefined && said !== size) {
      throw new IntegrityError("SIZE_MISMATCH", `${size} bytes`, `${said} bytes`, source.id);
    }
    target.accepted();
    const writer = new BatchWriter(range.start, target);
    let at = start;
    try {
      for await (const chunk of chunksOf(body)) {
        options.signal.throwIfAborted();
        // A source without ranges starts at 0: what was asked for comes later.
        const wanted = chunk.subarray(Math.max(0, range.start - at), Math.max(0, target.end() - at));
        at += chunk.length;
        if (wanted.length > 0) await writer.add(wanted);
        if (at >= target.end()) break;
      }
    } finally {
      // Also after a failure: the next source goes on where this one ended.
      await writer.end();
    }
    if (at < target.end()) throw new SourceError("CUT", source.id, { message: `the body ended at ${at}` });
  } finally {
    body.destroy();
  }
}
