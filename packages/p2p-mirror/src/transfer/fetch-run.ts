import type { Readable } from "node:stream";
import {
  consume,
  heldMsOf,
  IntegrityError,
  isRecycling,
  SourceError,
  type ByteRange,
  type Clock,
} from "@p2p-mirror/shared";
import { BatchWriter, type IsDue } from "./batch-writer.ts";
import { TooSlowError } from "./peer-client.ts";
import type { BlobSource } from "./source.ts";
import { StallWatch, type Floor } from "./stall-watch.ts";

/** A source that is silent for so long loses its run: while another source exists, and when it is the last one. */
const STALL_MS = 1_500;
const LAST_SOURCE_STALL_MS = 30_000;
/** A peer says its first byte within this while another source exists; the peer client's own limit is longer. */
const FIRST_BYTE_MS = 2_000;

export interface RunTarget {
  /** Where the run ends now; another source may have taken the rest over. */
  end(): number;
  /** The source has answered with a body that begins at `start`: 0 when it knows no ranges. */
  accepted(start: number): void;
  /** A chunk is here; it will be written with others. `recycle` takes it back when nobody looks at it any more. */
  arrived(offset: number, chunk: Buffer, recycle: ((chunk: Buffer) => void) | undefined): void;
  /** So many bytes came that nobody asked for: a source without ranges is on its way to the run. */
  passed?(bytes: number): void;
  /** Chunks that arrived and will not be written. */
  lost(offset: number, chunks: readonly Buffer[]): void;
  /** Whether these bytes are to be written at once, not with others. */
  isDue?: IsDue | undefined;
  /** Takes chunks that begin at `offset`; resolves when they are written. One call at a time. */
  write(offset: number, chunks: readonly Buffer[]): Promise<void>;
}

export interface RunOptions {
  /** Ends the request; `abort` is also called when the source is silent while another one could take over. */
  readonly abort: AbortController;
  readonly clock: Clock;
  /** Whether another source could take over now. */
  readonly alternatives: () => boolean;
  /** What it must bring while another source could take over; default: any byte will do. */
  readonly floor?: Floor | undefined;
}

/**
 * Brings `range` of a blob of `size` bytes from one source to the target, in order. Throws what the source throws;
 * SourceError `CUT` when it ends early, `STALLED` when it is silent; TooSlowError; IntegrityError (`SIZE_MISMATCH`) when the source says
 * the blob has another size.
 */
export async function fetchRun(
  source: BlobSource,
  range: ByteRange,
  size: number,
  target: RunTarget,
  { abort, clock, alternatives, floor }: RunOptions,
): Promise<void> {
  const hurried = alternatives();
  let opened: Readable | undefined;
  const watch = new StallWatch(
    {
      stallMs: hurried ? LAST_SOURCE_STALL_MS : STALL_MS,
      alternatives,
      floor,
      heldMs: () => heldMsOf(opened),
      onStall: (why) =>
        abort.abort(why === "slow" ? new TooSlowError(source.id) : new SourceError("STALLED", source.id)),
    },
    clock,
  );
  try {
    const { body, ...said } = await source.fetch(range, {
      size,
      signal: abort.signal,
      stallMs: hurried ? STALL_MS : LAST_SOURCE_STALL_MS,
      ...(hurried ? { firstByteMs: FIRST_BYTE_MS } : {}),
    });
    // While the last bytes are written nobody listens; a body that fails then must not end the process.
    body.on("error", () => undefined);
    opened = body;
    try {
      if (said.size !== undefined && said.size !== size) {
        throw new IntegrityError("SIZE_MISMATCH", `${size} bytes`, `${said.size} bytes`, source.id);
      }
      target.accepted(said.start);
      const writer = new BatchWriter(
        range.start,
        (offset, chunks) => target.write(offset, chunks),
        target.isDue,
      );
      const recycle = isRecycling(body) ? (chunk: Buffer) => body.recycle(chunk) : undefined;
      let at = said.start;
      try {
        await consume(body, (chunk) => {
          watch.arrived(chunk.length);
          abort.signal.throwIfAborted();
          // A source without ranges starts at 0: what was asked for comes later.
          const skip = Math.min(chunk.length, Math.max(0, range.start - at));
          const wanted = chunk.subarray(skip, Math.max(skip, target.end() - at));
          if (skip > 0) target.passed?.(skip);
          // First to the writer, which fails when an earlier write has: then nobody is to read it either.
          const room = wanted.length > 0 ? writer.add(wanted) : undefined;
          if (wanted.length > 0) target.arrived(at + skip, wanted, recycle);
          at += chunk.length;
          const more = (): boolean => {
            watch.waiting();
            return at < target.end();
          };
          return room?.then(more) ?? more();
        });
      } finally {
        // Also after a failure: the next source goes on where this one ended.
        try {
          await writer.end();
        } finally {
          const { offset, chunks } = writer.rest;
          target.lost(offset, chunks);
        }
      }
      if (at < target.end()) throw new SourceError("CUT", source.id, { message: `the body ended at ${at}` });
    } finally {
      body.destroy();
    }
  } finally {
    watch.close();
  }
}
