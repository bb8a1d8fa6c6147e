import { InvalidInputError } from "./errors.ts";

/** Bytes `start` up to, not including, `end` of a blob. Empty when they are equal. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
}

/** What a client's Range header asks of a blob of a known size. */
export type RangeRequest =
  | { readonly kind: "whole" }
  | { readonly kind: "part"; readonly range: ByteRange }
  | { readonly kind: "unsatisfiable" };

const SINGLE_RANGE = /^bytes=(\d{0,15})-(\d{0,15})$/;

/**
 * Reads a Range header (RFC 9110, 14.2) against a blob of `size` bytes. What the RFC lets a server ignore (other units,
 * several ranges, a malformed value) is the whole. So is `bytes=0-`: containerd in chunked mode then takes one stream,
 * and no later chunk can kill its pull (facts: containerd 2.1, concurrent_layer_fetch_buffer).
 */
export function readRange(header: string | undefined, size: number): RangeRequest {
  const match = header === undefined ? null : SINGLE_RANGE.exec(header.trim());
  if (match === null) return { kind: "whole" };
  const [, first, last] = match;
  if (first === "") {
    if (last === "" || last === undefined) return { kind: "whole" };
    const suffix = Number(last);
    if (suffix === 0) return { kind: "unsatisfiable" };
    // The end of nothing: satisfiable, but a Content-Range has no way to say it.
    if (size === 0) return { kind: "whole" };
    return { kind: "part", range: { start: Math.max(0, size - suffix), end: size } };
  }
  const start = Number(first);
  if (last !== "" && Number(last) < start) return { kind: "whole" };
  if (start >= size) return size === 0 && start === 0 ? { kind: "whole" } : { kind: "unsatisfiable" };
  if (start === 0 && last === "") return { kind: "whole" };
  return { kind: "part", range: { start, end: last === "" ? size : Math.min(size, Number(last) + 1) } };
}

export function formatContentRange(range: ByteRange, size: number): string {
  return `bytes ${range.start}-${range.end - 1}/${size}`;
}

const CONTENT_RANGE = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/;

/** @throws InvalidInputError (`RANGE_INVALID`) when the header of a 206 cannot be right; an unknown size (`*`) cannot. */
export function parseContentRange(header: string): { range: ByteRange; size: number } {
  const match = CONTENT_RANGE.exec(header);
  const [start, last, size] =
    match === null ? [1, 0, 0] : [Number(match[1]), Number(match[2]), Number(match[3])];
  if (start > last || last >= size)
    throw new InvalidInputError("RANGE_INVALID", "Content-Range", header.slice(0, 80));
  return { range: { start, end: last + 1 }, size };
}
