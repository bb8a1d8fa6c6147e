import { linkSignal, type Clock, type Digest, type Logger } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import { PieceGeometry } from "../transfer/pieces.ts";
import { MAX_PIECES } from "./bitmap.ts";
import { channelPair } from "./channel-pair.ts";
import { Avoided } from "./closest.ts";
import { MAX_AVOIDED, type Join, type Merge, type SwarmMessage } from "./messages.ts";
import type { SwarmMetrics } from "./metrics.ts";
import { Room } from "./room.ts";
import { TIMES } from "./times.ts";
import { SWARM_PROTOCOL, type Channel, type Contact, type Wire } from "./wire.ts";

/** A redirect leads closer each time; members' tables may differ, but not for ever. */
export const MAX_HOPS = 2;

export interface CoordinatorOptions {
  /** Members of one digest that fetch from upstream at a time. */
  readonly maxFetchers: number;
  /** Digests that are coordinated at a time; more are refused. */
  readonly maxRooms: number;
  readonly maxMembers: number;
}

/** The nodes closest to a digest by the own routing table, this one among them, closest first. */
export type Closest = (digest: Digest, count: number) => readonly Contact[];

/** This node: its data plane and its libp2p. Read when needed, since both are known after start only. */
export interface Self {
  readonly peer: Peer;
  readonly contact: Contact;
}

export interface CoordinatorDeps {
  readonly self: Self;
  readonly wire: Wire;
  readonly closest: Closest;
  readonly clock: Clock;
  readonly random: () => number;
  readonly logger: Logger;
  readonly metrics: SwarmMetrics;
}

interface Hall {
  readonly key: string;
  readonly digest: Digest;
  readonly room: Room;
  readonly size: number;
  readonly channels: Map<string, Channel>;
  /** Members that could not reach where they were sent, and until when they are left in peace. */
  readonly staying: Map<string, number>;
  /** Until when a connection that breaks holds nobody up. */
  calmUntil: number;
  mergeAt: number;
  merging: boolean;
  cancelNews: (() => void) | undefined;
}

/** All swarms that this node coordinates: brings messages to their rooms, and what the rooms say to their members. */
export class Coordinator {
  readonly #options: CoordinatorOptions;
  readonly #deps: CoordinatorDeps;
  readonly #halls = new Map<string, Hall>();
  readonly #avoided: Avoided;
  readonly #closing = new AbortController();
  #unhandle: (() => Promise<void>) | undefined;
  #cancelTick: (() => void) | undefined;
  #tickDue = 0;
  #heldUp = 0;

  constructor(options: CoordinatorOptions, deps: CoordinatorDeps) {
    this.#options = options;
    this.#deps = deps;
    this.#avoided = new Avoided(deps.clock);
  }

  async start(): Promise<void> {
    this.#unhandle = await this.#deps.wire.handle(SWARM_PROTOCOL, (channel) => void this.#serve(channel));
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#cancelTick?.();
    for (const hall of this.#halls.values()) this.#end(hall);
    await this.#unhandle?.();
  }

  /** A channel to this node itself. */
  connect(): Channel {
    const { id } = this.#deps.self.contact;
    const [mine, served] = channelPair(id, id);
    void this.#serve(served);
    return mine;
  }

  /** For the status page: who is in the swarm of a digest that this node coordinates. */
  members(digest: Digest): readonly string[] {
    for (const hall of this.#halls.values()) if (hall.digest === digest) return hall.room.members;
    return [];
  }

  leases(digest: Digest): Room["leases"] {
    for (const hall of this.#halls.values()) if (hall.digest === digest) return hall.room.leases;
    return [];
  }

  async #serve(channel: Channel): Promise<void> {
    const cancel = this.#deps.clock.after(TIMES.dial, () => channel.close());
    let hall: Hall | undefined;
    try {
      for await (const message of channel.messages) {
        cancel();
        this.#deps.metrics.messages.inc({ direction: "in", kind: message.kind });
        if (this.#closing.signal.aborted) return;
        if (message.kind === "merge") this.#onMerge(channel, message);
        else if (message.kind === "join") hall = this.#onJoin(channel, message);
        else if (hall !== undefined) this.#onMessage(hall, channel, message);
        if (hall === undefined && message.kind !== "merge") return;
        if (message.kind === "leave") return;
      }
    } catch (error) {
      this.#deps.logger.error({ err: error, peer: channel.peer }, "a member's channel failed");
    } finally {
      cancel();
      channel.close();
      if (hall !== undefined) this.#onClosed(hall, channel);
    }
  }

  #onJoin(channel: Channel, join: Join): Hall | undefined {
    const known = this.#halls.get(keyOf(join));
    const closer = this.#closerFor(join, known);
    if (closer !== undefined) {
      this.#send(channel, { kind: "redirect", to: closer });
      return undefined;
    }
    const now = this.#now();
    const hall = known ?? this.#open(join, join.again ? now + TIMES.settle : now);

    if (hall === undefined || !hall.room.join(channel.peer, join, now)) return undefined;
    const before = hall.channels.get(channel.peer);
    hall.channels.set(channel.peer, channel);
    before?.close();
    this.#tellUrgent(hall);
    this.#tellSoon(hall);
    // That a closer node did not answer may be this member's own trouble: if it answers here, all are sent there.
    if (join.hops >= MAX_HOPS) hall.staying.set(channel.peer, now + TIMES.avoid);
    else if (join.avoid.length > 0 && !hall.merging) void this.#lookForCloser(hall, true);
    return hall;
  }

  /** A node that is closer than this one, and that is worth a try. */
  #closerFor(join: Join, known: Hall | undefined): Contact | undefined {
    if (join.hops >= MAX_HOPS) return undefined;
    for (const node of this.#deps.closest(join.digest, MAX_AVOIDED + 1)) {
      if (node.id === this.#deps.self.contact.id) return undefined;
      // Where a swarm is here because a closer node did not answer its members, a newcomer need not try it.
      if (join.avoid.includes(node.id)) this.#avoided.add(node.id);
      else if (known === undefined || !this.#avoided.has(node.id)) return node;
    }
    return undefined;
  }

  #onMerge(channel: Channel, merge: Merge): void {
    const until = this.#now() + TIMES.settle;
    const hall = this.#halls.get(keyOf(merge)) ?? this.#open(merge, until);
    if (hall === undefined) return;
    hall.room.settle(until);
    this.#send(channel, merge);
  }

  #onMessage(hall: Hall, channel: Channel, message: SwarmMessage): void {
    const { room, channels } = hall;
    // A member that has come again over another channel speaks there.
    if (channels.get(channel.peer) !== channel) return;
    const now = this.#now();
    if (message.kind === "progress") room.progress(channel.peer, message, now);
    else if (message.kind === "hand-back") room.handBack(channel.peer, message, now);
    else if (message.kind === "leave") room.leave(channel.peer, message.complete, now);
    else return;
    this.#tellUrgent(hall);
    this.#tellSoon(hall);
  }

  #onClosed(hall: Hall, channel: Channel): void {
    const { room, channels } = hall;
    if (channels.get(channel.peer) !== channel) return;
    channels.delete(channel.peer);
    hall.staying.delete(channel.peer);
    this.#awaitReturn(hall, channel.peer);
    room.lost(channel.peer);
    if (room.size === 0 && !hall.merging) this.#end(hall);
    else this.#tellUrgent(hall);
  }

  /**
   * The connection of one that has leases broke. It may be back in a moment, and many with it: nobody gets what is theirs
   * before. Not again and again, or one member could hold all up.
   */
  #awaitReturn(hall: Hall, peer: string): void {
    const now = this.#now();
    if (now < hall.calmUntil || !hall.room.leases.some(({ holder }) => holder === peer)) return;
    hall.calmUntil = now + TIMES.merge;
    hall.room.settle(now + TIMES.comeBack);
  }

  #open(about: { digest: Digest; size: number }, settleUntil: number): Hall | undefined {
    const { random } = this.#deps;
    if (this.#halls.size >= this.#options.maxRooms || about.size <= 0) return undefined;
    const geometry = new PieceGeometry(about.size);
    if (geometry.count > MAX_PIECES) return undefined;
    const hall: Hall = {
      key: keyOf(about),
      digest: about.digest,
      size: about.size,
      room: new Room({ ...this.#options, geometry, random, settleUntil }),
      channels: new Map(),
      staying: new Map(),
      calmUntil: -Infinity,
      mergeAt: this.#now() + TIMES.merge,
      merging: false,
      cancelNews: undefined,
    };
    this.#halls.set(hall.key, hall);
    this.#deps.metrics.rooms.set(this.#halls.size);
    if (this.#cancelTick === undefined) this.#tickLater();
    return hall;
  }

  #end(hall: Hall): void {
    this.#halls.delete(hall.key);
    this.#deps.metrics.rooms.set(this.#halls.size);
    hall.cancelNews?.();
    for (const channel of hall.channels.values()) channel.close();
  }

  #tick(): void {
    this.#cancelTick = undefined;
    // This process was held up: what members have said meanwhile is not read yet. That time does not count.
    this.#heldUp += Math.max(0, this.#now() - this.#tickDue - TIMES.tick);
    const now = this.#now();
    for (const hall of this.#halls.values()) {
      for (const id of hall.room.tick(now)) hall.channels.get(id)?.close();
      // A room that was opened for a merge is empty until the members come.
      if (hall.room.size === 0 && now >= hall.mergeAt) this.#end(hall);
      else this.#tellUrgent(hall);
      if (now >= hall.mergeAt && !hall.merging) void this.#lookForCloser(hall, false);
    }
    if (this.#halls.size > 0) this.#tickLater();
  }

  #tickLater(): void {
    this.#tickDue = this.#now() + TIMES.tick;
    this.#cancelTick ??= this.#deps.clock.after(TIMES.tick, () => this.#tick());
  }

  /** Milliseconds, without those in which nothing could be heard. */
  #now(): number {
    return this.#deps.clock.now() - this.#heldUp;
  }

  /** Answers, leases and other things that cannot wait. */
  #tellUrgent(hall: Hall): void {
    const now = this.#now();
    for (const id of hall.room.takeUrgent(now)) this.#tell(hall, id, now);
  }

  /** Neighbours, a little later, since many members come at once. */
  #tellSoon(hall: Hall): void {
    hall.cancelNews ??= this.#deps.clock.after(TIMES.neighbourNews, () => {
      hall.cancelNews = undefined;
      const now = this.#now();
      for (const id of hall.room.takeNeedy()) this.#tell(hall, id, now);
    });
  }

  #tell(hall: Hall, id: string, now: number): void {
    const channel = hall.channels.get(id);
    const told = channel === undefined ? undefined : hall.room.toldTo(id, now);
    if (channel !== undefined && told !== undefined) this.#send(channel, told);
  }

  #send(channel: Channel, message: SwarmMessage): void {
    this.#deps.metrics.messages.inc({ direction: "out", kind: message.kind });
    channel.send(message);
  }

  /** The routing table may know a closer node by now: if it answers, the members are sent there. */
  async #lookForCloser(hall: Hall, evenAvoided: boolean): Promise<void> {
    const { self, closest } = this.#deps;
    hall.mergeAt = this.#now() + TIMES.merge;
    hall.merging = true;
    for (const node of closest(hall.digest, MAX_HOPS + 1)) {
      if (node.id === self.contact.id) break;
      if (!evenAvoided && this.#avoided.has(node.id)) continue;
      if (await this.#offer(hall, node)) {
        this.#avoided.delete(node.id);
        this.#handOver(hall, node);
        break;
      }
      this.#avoided.add(node.id);
    }
    hall.merging = false;
    if (hall.room.size === 0) this.#end(hall);
  }

  #handOver(hall: Hall, to: Contact): void {
    const now = this.#now();
    for (const [id, channel] of hall.channels) {
      if ((hall.staying.get(id) ?? 0) > now) continue;
      this.#send(channel, { kind: "redirect", to });
      hall.channels.delete(id);
      hall.room.gone(id);
      channel.close();
    }
  }

  async #offer({ digest, size }: Hall, to: Contact): Promise<boolean> {
    const { wire, clock } = this.#deps;
    using link = linkSignal([this.#closing.signal]);
    const cancel = clock.after(TIMES.dial + TIMES.answer, () => link.abort());
    let channel: Channel | undefined;
    const onAbort = (): void => channel?.close();
    link.signal.addEventListener("abort", onAbort);
    try {
      channel = await wire.open(to, SWARM_PROTOCOL, link.signal);
      this.#send(channel, { kind: "merge", digest, size });
      for await (const answer of channel.messages) return answer.kind === "merge" && answer.digest === digest;
      return false;
    } catch {
      return false;
    } finally {
      cancel();
      channel?.close();
    }
  }
}

/** Members that do not say the same size are in different rooms: one of them was told a wrong one. */
const keyOf = (about: { readonly digest: Digest; readonly size: number }): string =>
  `${about.digest} ${about.size}`;
