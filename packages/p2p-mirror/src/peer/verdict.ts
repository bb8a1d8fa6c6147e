import {
  formatContentRange,
  InvalidInputError,
  parseContentRange,
  SourceError,
  type ByteRange,
} from "@p2p-mirror/shared";
import type { Head } from "./exchange.ts";
import { MAX_RECORD_BYTES } from "./protocol.ts";

export interface PeerQuestion {
  readonly kind: "blob" | "piece" | "stat" | "record";
  readonly path: string;
  /** What the answer must have, in bytes; undefined: that is not known. */
  readonly length?: number | undefined;
  /** Undefined: the whole. */
  readonly range?: ByteRange | undefined;
}

/** What the head of an answer means; `size` is that of the whole object. */
export type Verdict =
  | { readonly kind: "fine"; readonly size: number }
  | { readonly kind: "not-found" }
  | { readonly kind: "busy" }
  | { readonly kind: "wrong"; readonly error: SourceError };

function rangeOf(header: string | undefined): { range: ByteRange; size: number } | undefined {
  try {
    return parseContentRange(header ?? "");
  } catch (error) {
    if (error instanceof InvalidInputError) return undefined;
    throw error;
  }
}

/** Judges an answer before its body is looked at: nothing but exactly what was asked for is fine. */
export function judge(peer: string, question: PeerQuestion, head: Head): Verdict {
  const { status, headers, length } = head;
  const wrong = (message: string): Verdict => ({
    kind: "wrong",
    error: new SourceError("STATUS", peer, { message, status }),
  });
  if (status === 404) return { kind: "not-found" };
  if (status === 503) return { kind: "busy" };
  if (status !== (question.range === undefined ? 200 : 206)) return wrong(`answered ${status}`);
  if (question.kind === "record" && length > MAX_RECORD_BYTES) return wrong(`a record of ${length} bytes`);
  if (question.length !== undefined && length !== question.length) {
    return wrong(`${length} bytes instead of ${question.length}`);
  }
  if (question.range === undefined) return { kind: "fine", size: length };
  const asked = question.range;
  const given = rangeOf(headers["content-range"]);
  if (given === undefined) return wrong("206 without a valid Content-Range");
  if (
    given.range.start !== asked.start ||
    given.range.end !== asked.end ||
    length !== asked.end - asked.start
  ) {
    return wrong(
      `${length} bytes, "${formatContentRange(given.range, given.size)}" for ${asked.start}-${asked.end - 1}`,
    );
  }
  return { kind: "fine", size: given.size };
}
