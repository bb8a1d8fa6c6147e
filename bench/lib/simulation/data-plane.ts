import { raceSignal, NotFoundError, SourceError } from "@p2p-mirror/shared";
import type { Peer } from "../../../packages/p2p-mirror/src/routing/router.ts";
import type { SignedHash } from "../../../packages/p2p-mirror/src/swarm/swarm.ts";
import type { AskForPiece } from "../../../packages/p2p-mirror/src/transfer/fetch-piece.ts";
import { BusyError } from "../../../packages/p2p-mirror/src/transfer/peer-client.ts";
import { pause } from "../../../packages/p2p-mirror/src/transfer/patience.ts";
import type { BlobSource } from "../../../packages/p2p-mirror/src/transfer/source.ts";
import { bodyOf, chunksOf, CHUNK_BYTES } from "./bodies.ts";
import type { FlowBody } from "./flow-body.ts";
import type { SimNode } from "./sim-node.ts";
import type { World } from "./world.ts";

/** As the peers' client and server: dialling, the first byte, silence, and bodies that need no upload slot. */
const DIAL_MS = 1_000;
const FIRST_BYTE_MS = 3_000;
const STALL_MS = 30_000;
const MIN_BYTES = 16 * 1024;
const SLOTS = 16;
const NO_SLOT_BYTES = 1024 * 1024;

interface Wait {
  readonly signal: AbortSignal;
  readonly firstByteMs?: number | undefined;
}

/** Pieces and whole blobs from node to node, over the links of a world. */
export class DataPlane {
  readonly #world: World;
  readonly #node: SimNode;

  /** As `node` uses it. */
  constructor(world: World, node: SimNode) {
    this.#world = world;
    this.#node = node;
  }

  readonly ask: AskForPiece = async (peer, digest, { piece }, { signal, stallMs, firstByteMs }) =>
    this.#connected(peer, signal, async (release) => {
      const server = await this.#reach(peer, { signal, firstByteMs });
      const content = await server.serve(piece, signal);
      if (content === undefined) throw new NotFoundError("BLOB_UNKNOWN", `piece ${piece} of ${digest}`);
      const { chunks, hash } = content;
      const bytes = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
      const flips = server.flips?.(piece) ?? false;
      const sent = flips ? chunks.map(flipped) : chunks;
      return { body: this.#send(server, sent[Symbol.iterator](), bytes, { signal, stallMs, release }), hash };
    });

  /** A peer as a holder of the whole. */
  source(peer: Peer): BlobSource {
    return {
      kind: "peer",
      id: peer.id,
      peer,
      available: true,
      refuted: () => void this.#node.refuted.add(peer.id),
      fetch: (range, options) =>
        this.#connected(peer, options.signal, async (release) => {
          const server = await this.#reach(peer, options);
          if (!server.stored) throw new NotFoundError("BLOB_UNKNOWN", `the blob at ${peer.id}`);
          const { bytes } = this.#world.blob;
          const { start, end } = range;
          const chunks = chunksOf(bytes, start, end, CHUNK_BYTES);
          const body = this.#send(server, chunks, end - start, { ...options, release });
          return { start, size: bytes.length, body };
        }),
    };
  }

  /** One request: `work` makes the body that gives the connection back. */
  async #connected<T>(
    peer: Peer,
    signal: AbortSignal,
    work: (release: () => void) => Promise<T>,
  ): Promise<T> {
    const { connections } = this.#world.options;
    const release = (await connections?.take(this.#node.id, peer.id, signal)) ?? (() => undefined);
    try {
      return await work(release);
    } catch (error) {
      release();
      throw error;
    }
  }

  #send(
    server: SimNode,
    chunks: Iterator<Buffer, void>,
    bytes: number,
    {
      signal,
      stallMs,
      release,
    }: { readonly signal: AbortSignal; readonly stallMs?: number | undefined; readonly release: () => void },
  ): FlowBody {
    const takesSlot = bytes > NO_SLOT_BYTES;
    if (takesSlot && server.uploads >= SLOTS) throw new BusyError(server.id);
    if (takesSlot) server.uploads += 1;
    return bodyOf(this.#world, {
      from: server.id,
      node: this.#node,
      links: [server.up, this.#node.down],
      chunks,
      signal,
      watch: { ms: stallMs ?? STALL_MS, minBytes: stallMs === undefined ? 1 : MIN_BYTES },
      moved: (more) => {
        server.given += more;
        if (server.zone !== this.#node.zone) this.#world.crossed += more;
      },
      closed: () => {
        if (takesSlot) server.uploads -= 1;
        release();
      },
    });
  }

  /** Connection, request and the head of the answer. */
  async #reach(peer: Peer, { signal, firstByteMs = FIRST_BYTE_MS }: Wait): Promise<SimNode> {
    const world = this.#world;
    const { id, clock } = this.#node;
    const server = world.node(peer.id);
    const began = clock.now();
    for (;;) {
      signal.throwIfAborted();
      // A process that is stopped has connections, but does not answer; behind a cut there are none.
      const limit = server.stopped ? firstByteMs : DIAL_MS;
      const left = began + limit - clock.now();
      if (world.reaches(peer.id, id)) break;
      if (left <= 0) throw new SourceError(server.stopped ? "NO_FIRST_BYTE" : "UNREACHABLE", peer.id);
      const { change } = world.ways;
      const over = Promise.withResolvers<void>();
      const cancel = clock.after(left, over.resolve);
      await raceSignal(Promise.race([change, over.promise]), signal).finally(cancel);
    }
    await pause(2 * world.latency(id, peer.id), clock, signal);
    if (!server.alive) throw new SourceError("UNREACHABLE", peer.id);
    return server;
  }
}

/** What a node gives of a piece. */
export interface ServedPiece {
  readonly chunks: readonly Buffer[];
  readonly hash: SignedHash;
}

function flipped(chunk: Buffer): Buffer {
  const copy = Buffer.from(chunk);
  copy[0] = (copy[0] ?? 0) ^ 1;
  return copy;
}
