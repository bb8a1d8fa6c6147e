import { SourceError } from "@p2p-mirror/shared";
import type { CrowdedLink } from "./crowded-link.ts";
import { FlowBody } from "./flow-body.ts";
import type { Link } from "./flows.ts";
import type { SimNode } from "./sim-node.ts";
import type { World } from "./world.ts";

/** As much as a socket gives at once; and of a thin link, where a record of TLS is what comes at once. */
export const CHUNK_BYTES = 64 * 1024;
export const RECORD_BYTES = 16 * 1024;

export interface BodyOptions {
  readonly from: string;
  /** Who reads it. */
  readonly node: SimNode;
  readonly links: readonly Link[];
  /** One of them is shared by many. */
  readonly crowded?: CrowdedLink | undefined;
  readonly chunks: Iterator<Buffer, void>;
  /** See FlowBody. */
  readonly unwanted?: number;
  readonly signal: AbortSignal;
  /** So many bytes more have come over the links. */
  readonly moved?: (bytes: number) => void;
  /** Fewer than `minBytes` in `ms` while the reader reads: the body ends in `STALLED`. */
  readonly watch: { readonly ms: number; readonly minBytes: number };
  readonly closed?: () => void;
}

/** The parts of `bytes` from `start` to `end`, cut at multiples of `size`. */
export function* chunksOf(
  bytes: Buffer,
  start: number,
  end: number,
  size: number,
): Generator<Buffer, void, undefined> {
  for (let at = start; at < end;) {
    const next = Math.min(end, (Math.floor(at / size) + 1) * size);
    yield bytes.subarray(at, next);
    at = next;
  }
}

/** A body on its way to a node, with what a client does about it: it ends with the signal, and when nothing comes. */
export function bodyOf(world: World, options: BodyOptions): FlowBody {
  const { from, node, links, crowded, chunks, unwanted, signal, watch, moved, closed } = options;
  const { id, clock } = node;
  let known = 0;
  const look = (): number => {
    const more = body.moved - known;
    known += more;
    if (more > 0) moved?.(more);
    return more;
  };
  const next = (): Buffer | undefined => {
    const { value } = chunks.next();
    return value ?? undefined;
  };
  const body: FlowBody = new FlowBody(world.flows, {
    from,
    to: id,
    links,
    ...(crowded !== undefined && { weight: crowded.weight() }),
    next,
    ...(unwanted !== undefined && { unwanted }),
    arrived: () => {
      look();
      node.mostInMemory = Math.max(node.mostInMemory, body.inMemory);
      const silence = crowded?.silenceMs() ?? 0;
      if (silence === 0) return;
      body.hold();
      clock.after(silence, () => body.release());
    },
    closed: () => {
      look();
      cancel?.();
      signal.removeEventListener("abort", onAbort);
      world.bodies.delete(body);
      node.bodies.delete(body);
      closed?.();
    },
  });
  const onAbort = (): void => {
    const reason: unknown = signal.reason;
    body.destroy(reason instanceof Error ? reason : new DOMException("aborted", "AbortError"));
  };
  signal.addEventListener("abort", onAbort, { once: true });
  let cancel: (() => void) | undefined;
  let before = 0;
  const check = (): void => {
    cancel = clock.after(watch.ms, () => {
      const now = body.moved;
      if (body.waits && now - before < watch.minBytes) body.destroy(new SourceError("STALLED", from));
      else check();
      before = now;
    });
  };
  check();
  world.bodies.set(body, { from, to: id });
  node.bodies.add(body);
  node.mostBodies = Math.max(node.mostBodies, node.bodies.size);
  if (signal.aborted) onAbort();
  return body;
}
