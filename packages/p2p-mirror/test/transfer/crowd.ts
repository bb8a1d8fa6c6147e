import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { digestOf, NotFoundError, silentLogger, systemClock } from "@p2p-mirror/shared";
import { Registry } from "prom-client";
import type { Test } from "tap";
import { createSwarmCodec } from "../../src/swarm/codec.ts";
import { MemoryNetwork } from "../../src/swarm/memory-wire.ts";
import { createSwarmMetrics } from "../../src/swarm/metrics.ts";
import { createSwarm, type MirrorSwarm } from "../../src/swarm/mirror-swarm.ts";
import type { PieceHere } from "../../src/transfer/content.ts";
import type { AskForPiece } from "../../src/transfer/fetch-piece.ts";
import { Flight } from "../../src/transfer/flight.ts";
import { HolderQueue } from "../../src/transfer/holder-queue.ts";
import type { RefutedBlob } from "../../src/transfer/refuted-blobs.ts";
import { PieceGeometry } from "../../src/transfer/pieces.ts";
import type { BlobSource } from "../../src/transfer/source.ts";
import type { Spool } from "../../src/transfer/spool.ts";
import { cheapSigner, seeded } from "../swarm/rig.ts";
import { fileSpool } from "./flying.ts";
import { ScriptedFinder } from "./scripted-source.ts";

export interface CrowdOptions {
  readonly nodes: number;
  readonly seed: number;
  /** Upstream of the n-th node. */
  readonly upstream: (nth: number) => BlobSource | undefined;
  /** Peers that the lookup of the n-th node finds; default none. */
  readonly found?: (nth: number) => BlobSource[];
  /** What becomes of a piece on its way from one node to another. */
  readonly onTheWay?: (from: string, to: string, piece: number, bytes: Buffer) => Buffer | Error;
}

export interface CrowdNode {
  readonly id: string;
  readonly swarm: MirrorSwarm;
  flight: Flight | undefined;
  /** What its last flight has left, if that ended in a wrong blob. */
  refuted: RefutedBlob | undefined;
  /** Bytes of pieces that others got here. */
  given: number;
  /** Pieces that others asked for and that were not here. */
  missed: number;
}

/** Flights of one blob on several nodes in this process: real files, real time, the swarm over a network in memory. */
export class Crowd {
  readonly nodes: CrowdNode[] = [];
  readonly network: MemoryNetwork;
  readonly #t: Test;
  readonly #bytes: Buffer;
  readonly #options: CrowdOptions;

  private constructor(t: Test, bytes: Buffer, options: CrowdOptions) {
    this.#t = t;
    this.#bytes = bytes;
    this.#options = options;
    this.network = new MemoryNetwork({ clock: systemClock, latency: () => 0, codec: createSwarmCodec() });
  }

  static async of(t: Test, bytes: Buffer, options: CrowdOptions): Promise<Crowd> {
    const crowd = new Crowd(t, bytes, options);
    const random = seeded(options.seed);
    const contacts = Array.from({ length: options.nodes }, (_, nth) => ({
      id: `node${nth}`,
      host: "127.0.0.1",
      port: 1_000 + nth,
    }));
    for (const contact of contacts) {
      const swarm = createSwarm(
        {},
        {
          self: { contact, peer: contact },
          wire: crowd.network.node(contact.id),
          closest: (_, count) => contacts.slice(0, count),
          clock: systemClock,
          random,
          signer: cheapSigner(contact.id),
          load: () => 0,
          logger: silentLogger(),
          metrics: createSwarmMetrics(new Registry()),
        },
      );
      await swarm.start(new AbortController().signal);
      crowd.nodes.push({ id: contact.id, swarm, flight: undefined, refuted: undefined, given: 0, missed: 0 });
    }
    t.teardown(async () => {
      const over = new Error("the test is over");
      await Promise.all(
        crowd.nodes.flatMap(({ flight }) => (flight === undefined ? [] : [flight.close(over)])),
      );
      for (const { refuted } of crowd.nodes) await refuted?.spool.release();
      await Promise.all(crowd.nodes.map(({ swarm }) => swarm.close()));
    });
    return crowd;
  }

  async start(nth: number, spool?: Spool): Promise<Flight> {
    const node = this.nodes[nth];
    if (node === undefined) throw new RangeError(`no node ${nth}`);
    const bytes = this.#bytes;
    const { refuted } = node;
    node.refuted = undefined;
    const flight = new Flight(
      {
        digest: digestOf(bytes),
        size: bytes.length,
        ...(refuted !== undefined && { left: refuted.hashes }),
      },
      {
        spool: spool ?? refuted?.spool ?? (await fileSpool(this.#t, bytes.length)),
        refuted: (wrong) => Promise.resolve(void (node.refuted = wrong)),
        finder: new ScriptedFinder(this.#options.upstream(nth), this.#options.found?.(nth)),
        clock: systemClock,
        logger: silentLogger(),
        received: () => undefined,
        swarm: {
          swarm: node.swarm,
          zone: "",
          ask: this.#ask(node.id),
          random: seeded(this.#options.seed + nth),
          holders: new HolderQueue(),
        },
      },
    );
    flight.addOrigin({ registry: "registry", repository: "repo" });
    node.flight = flight;
    return flight;
  }

  /** What the node has kept when its flight was over. */
  async #stored(node: CrowdNode | undefined, piece: number): Promise<PieceHere | undefined> {
    if (node?.flight?.isOver !== true) return undefined;
    const done = await node.flight.done.then(
      () => true,
      () => false,
    );
    const geometry = new PieceGeometry(this.#bytes.length);
    const about = { digest: digestOf(this.#bytes), size: this.#bytes.length, geometry };
    const hashes = node.swarm.hashes(about);
    if (!done) return undefined;
    const bytes = this.#bytes.subarray(geometry.start(piece), geometry.end(piece));
    return {
      length: bytes.length,
      get hash() {
        return hashes.of(piece);
      },
      sign: (sha256) => hashes.sign(piece, sha256),
      open: () => Promise.resolve(Readable.from([bytes])),
    };
  }

  #ask(asker: string): AskForPiece {
    return async (peer, digest, { piece }, { signal }) => {
      const node = this.nodes.find(({ id }) => id === peer.id);
      const content = node?.flight?.piece(piece) ?? (await this.#stored(node, piece));
      if (node === undefined || content === undefined) {
        if (node !== undefined) node.missed += 1;
        throw new NotFoundError("BLOB_UNKNOWN", `piece ${piece} of ${digest} at ${peer.id}`);
      }
      const bytes = await buffer(await content.open({ signal }));
      if (content.hash === undefined) content.sign(createHash("sha256").update(bytes).digest());
      const { hash } = content;
      if (hash === undefined)
        throw new NotFoundError("BLOB_UNKNOWN", `a hash of piece ${piece} of ${digest}`);
      node.given += bytes.length;
      const sent = this.#options.onTheWay?.(peer.id, asker, piece, bytes) ?? bytes;
      if (sent instanceof Error) throw sent;
      return { body: Readable.from([sent], { objectMode: false }), hash };
    };
  }
}
