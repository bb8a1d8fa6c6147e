import { createHash } from "node:crypto";
import { consume, IntegrityError, isRecycling, silentLogger, SourceError } from "@p2p-mirror/shared";
import { Registry } from "prom-client";
import { createSwarmMetrics, type SwarmMetrics } from "../../../packages/p2p-mirror/src/swarm/metrics.ts";
import { createSwarm, type MirrorSwarm } from "../../../packages/p2p-mirror/src/swarm/mirror-swarm.ts";
import type { Peer } from "../../../packages/p2p-mirror/src/routing/router.ts";
import type { Contact } from "../../../packages/p2p-mirror/src/swarm/wire.ts";
import { Flight } from "../../../packages/p2p-mirror/src/transfer/flight.ts";
import { HolderQueue } from "../../../packages/p2p-mirror/src/transfer/holder-queue.ts";
import type { RefutedBlob } from "../../../packages/p2p-mirror/src/transfer/refuted-blobs.ts";
import { pause } from "../../../packages/p2p-mirror/src/transfer/patience.ts";
import type { BlobSource, SourceFinder } from "../../../packages/p2p-mirror/src/transfer/source.ts";
import { cheapSigner, seeded } from "../../../packages/p2p-mirror/test/swarm/rig.ts";
import { DataPlane, type ServedPiece } from "./data-plane.ts";
import type { FlowBody } from "./flow-body.ts";
import type { Link } from "./flows.ts";
import { KnownSpool } from "./known-spool.ts";
import { NodeClock } from "./node-clock.ts";
import { REPOSITORY } from "./upstream-model.ts";
import type { World } from "./world.ts";

/** A lookup in the DHT, and how long after its commit a blob is found there. */
const LOOKUP_MS = 60;
const ADVERTISED_MS = 500;
const SLOTS = 16;

/** What became of one try to read the whole blob. */
export interface Pull {
  readonly began: number;
  readonly ended: number;
  readonly error: Error | undefined;
  /** Bytes that were here when it ended. */
  readonly received: number;
}

/** A node: its process, which may end and begin again, and its disk and links, which stay. */
export class SimNode {
  readonly nth: number;
  readonly id: string;
  /** "" in a world without zones. */
  readonly zone: string;
  readonly peer: Peer;
  readonly contact: Contact;
  readonly up: Link;
  readonly down: Link;
  readonly wan: Link | undefined;
  readonly refuted = new Set<string>();
  readonly bodies = new Set<FlowBody>();
  readonly pulls: Pull[] = [];
  /** Since when the pull goes on that has not ended. */
  pullingSince: number | undefined;
  alive = false;
  /** By SIGSTOP. */
  stopped = false;
  /** The whole blob is on its disk. */
  stored = false;
  advertisedFrom = Infinity;
  /** When its reader has had the last byte. */
  readAt: number | undefined;
  /** A reader got all bytes, and other ones than the blob's. */
  wrongBytes = false;
  /** It wants the blob. */
  wanted = false;
  uploads = 0;
  /** Bytes that others got here. */
  given = 0;
  mostBodies = 0;
  /** Bytes of one body. */
  mostInMemory = 0;
  /** A piece leaves here with a bit flipped. */
  flips: ((piece: number) => boolean) | undefined;
  /** What it makes of what it gets from upstream, and signs. */
  liesAbout: ((chunk: Buffer) => Buffer) | undefined;
  readonly #world: World;
  #clock: NodeClock;
  #swarm: MirrorSwarm | undefined;
  #flight: Flight | undefined;
  #refuted: RefutedBlob | undefined;
  #life = 0;
  readonly holders: HolderQueue;

  constructor(world: World, nth: number) {
    const { links, beside, zones } = world.options;
    const same = beside?.nodes[nth];
    const host = `10.0.${nth >> 8}.${nth & 255}`;
    this.#world = world;
    this.nth = nth;
    this.id = `node${nth.toString().padStart(4, "0")}`;
    this.zone = zones === undefined ? "" : `zone ${nth % zones}`;
    this.peer = { id: this.id, host, port: 24221 };
    this.contact = { id: this.id, host, port: 24222 };
    this.up = same?.up ?? { rate: links.egress };
    this.down = same?.down ?? { rate: links.ingress };
    this.wan = same?.wan ?? (links.wan === undefined ? undefined : { rate: links.wan });
    this.#clock = new NodeClock(world.clock);
    this.holders = same?.holders ?? new HolderQueue();
  }

  get clock(): NodeClock {
    return this.#clock;
  }

  /** Bytes of the blob that are here, while it is on its way. */
  get received(): number {
    return this.#flight?.progress.received ?? 0;
  }

  get swarm(): MirrorSwarm | undefined {
    return this.#swarm;
  }

  async boot(): Promise<void> {
    const world = this.#world;
    if (world.closed) return;
    const { maxUpstreamFetchers, seed } = world.options;
    this.#life += 1;
    this.alive = true;
    this.uploads = 0;
    this.#clock = new NodeClock(world.clock);
    this.refuted.clear();
    const swarm = createSwarm(
      {
        zone: this.zone,
        ...(maxUpstreamFetchers !== undefined && { maxUpstreamFetchers }),
      },
      {
        self: { contact: this.contact, peer: this.peer },
        wire: world.network.node(this.id),
        closest: world.changes.closest((_, count) => world.closest(count)),
        clock: this.#clock,
        random: seeded(seed * 7_919 + this.nth * 104_729 + this.#life),
        signer: cheapSigner(this.id),
        load: () => Math.min(1, this.uploads / SLOTS),
        logger: silentLogger(),
        metrics: world.metrics,
      },
    );
    this.#swarm = swarm;
    await swarm.start(new AbortController().signal);
    if (this.stored) this.advertisedFrom = world.clock.now() + ADVERTISED_MS;
  }

  /** kill -9. What it had not committed is lost. */
  crash(): void {
    const world = this.#world;
    const over = new SourceError("CUT", this.id, { message: "the node has crashed" });
    this.cont();
    this.alive = false;
    this.pullingSince = undefined;
    world.network.kill(this.id);
    this.#clock.end();
    const [flight, swarm] = [this.#flight, this.#swarm];
    this.#flight = undefined;
    this.#swarm = undefined;
    this.#refuted = undefined;
    void flight?.close(over);
    world.cut(this.id, over);
    void swarm?.close();
    world.waysChanged();
  }

  stop(): void {
    if (!this.alive || this.stopped) return;
    this.stopped = true;
    this.#clock.stop();
    this.#world.network.silence(this.id);
    this.#world.waysChanged();
  }

  cont(): void {
    if (!this.stopped) return;
    this.stopped = false;
    this.#world.network.wake(this.id);
    this.#clock.goOn();
    this.#world.waysChanged();
  }

  /** It has the blob from the beginning, and has advertised it. */
  holds(): void {
    this.stored = true;
    this.advertisedFrom = 0;
  }

  /** Reads the whole blob, as containerd does, and again after a failure, as kubelet does: `retryMs` later. */
  async pull(retryMs: (tries: number) => number): Promise<void> {
    const life = this.#life;
    this.wanted = true;
    for (let tries = 1; ; tries += 1) {
      const began = this.#world.clock.now();
      this.pullingSince = began;
      const { error, received } = await this.#readOnce();
      if (!this.alive || life !== this.#life) return;
      this.pullingSince = undefined;
      this.pulls.push({ began, ended: this.#world.clock.now(), error, received });
      if (error === undefined || !this.wanted) return;
      await pause(retryMs(tries), this.#clock, new AbortController().signal);
    }
  }

  /** Its client goes away, and the pull with it, before it is through. */
  async giveUp(): Promise<void> {
    this.wanted = false;
    await this.#flight?.close(new DOMException("the client has left", "AbortError"));
  }

  /** What its server has of a piece. */
  async serve(piece: number, signal: AbortSignal): Promise<ServedPiece | undefined> {
    const content = this.#flight?.piece(piece);
    if (content !== undefined) {
      const chunks: Buffer[] = [];
      await consume(await content.open({ signal }), (chunk) => chunks.push(chunk) > 0);
      if (content.hash === undefined)
        content.sign(createHash("sha256").update(Buffer.concat(chunks)).digest());
      const { hash } = content;
      return hash && { chunks, hash };
    }
    return this.stored ? this.#stored(piece) : undefined;
  }

  #stored(piece: number): ServedPiece | undefined {
    const { blob, digest, geometry } = this.#world;
    const bytes = blob.bytes.subarray(geometry.start(piece), geometry.end(piece));
    const hashes = this.#swarm?.hashes({ digest, size: blob.bytes.length, geometry });
    if (hashes === undefined) return undefined;
    if (hashes.of(piece) === undefined) hashes.sign(piece, createHash("sha256").update(bytes).digest());
    const hash = hashes.of(piece);
    return hash === undefined ? undefined : { chunks: [bytes], hash };
  }

  async #readOnce(): Promise<Pick<Pull, "error" | "received">> {
    const { blob, clock } = this.#world;
    if (this.stored) {
      this.readAt ??= clock.now();
      return { error: undefined, received: blob.bytes.length };
    }
    const flight = this.#fly();
    let at = 0;
    let wrong = false;
    try {
      const body = flight.open({ start: 0, end: blob.bytes.length }, new AbortController().signal);
      await consume(body, (chunk) => {
        wrong ||= !isAt(blob.bytes, at, chunk);
        at += chunk.length;
        if (isRecycling(body)) body.recycle(chunk);
        return true;
      });
      if (at !== blob.bytes.length)
        throw new IntegrityError("SIZE_MISMATCH", `${blob.bytes.length}`, `${at}`, "?");
      // What comes before the end may be wrong, as long as the end does not come then.
      this.wrongBytes ||= wrong;
      this.readAt ??= clock.now();
      await flight.done;
      this.stored = true;
      this.advertisedFrom = clock.now() + ADVERTISED_MS;
      return { error: undefined, received: at };
    } catch (cause) {
      const error = cause instanceof Error ? cause : new Error("a pull failed", { cause });
      return { error, received: flight.progress.received };
    } finally {
      if (this.#flight === flight) this.#flight = undefined;
    }
  }

  #fly(): Flight {
    const world = this.#world;
    const { changes, blob, digest, options } = world;
    const plane = new DataPlane(world, this);
    const swarm = this.#swarm;
    if (swarm === undefined) throw new Error(`${this.id} does not run`);
    const [refuted, life] = [this.#refuted, this.#life];
    this.#refuted = undefined;
    const flight = new Flight(
      { digest, size: blob.bytes.length, ...(refuted !== undefined && { left: refuted.hashes }) },
      {
        spool: refuted?.spool ?? new KnownSpool(blob.bytes, this.#clock, options.diskRate),
        refuted: async (wrong) => {
          if (this.alive && life === this.#life) this.#refuted = wrong;
        },
        finder: this.#finder(plane),
        clock: this.#clock,
        logger: silentLogger(),
        received: () => undefined,
        swarm: {
          ...changes.flight({ swarm, ask: plane.ask }),
          zone: this.zone,
          holders: this.holders,
          random: seeded(options.seed * 31 + this.nth * 1_299_709 + this.#life),
        },
      },
    );
    flight.addOrigin(REPOSITORY);
    this.#flight = flight;
    return flight;
  }

  #finder(plane: DataPlane): SourceFinder {
    const world = this.#world;
    const clock = this.#clock;
    const { id, refuted } = this;
    return {
      async *peers(_digest, signal): AsyncGenerator<BlobSource, void, undefined> {
        await pause(LOOKUP_MS, clock, signal);
        for (const holder of world.holders()) {
          if (holder.id !== id && !refuted.has(holder.id)) yield plane.source(holder.peer);
        }
      },
      peer: (peer) => plane.source(peer),
      upstream: () => world.upstream.source(this),
    };
  }
}

function isAt(bytes: Buffer, offset: number, chunk: Buffer): boolean {
  const same = chunk.buffer === bytes.buffer && chunk.byteOffset === bytes.byteOffset + offset;
  return same || chunk.equals(bytes.subarray(offset, offset + chunk.length));
}

export const swarmMetrics = (): SwarmMetrics => createSwarmMetrics(new Registry());
