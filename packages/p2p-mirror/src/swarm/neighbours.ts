import { linkSignal, type Clock, type Logger } from "@p2p-mirror/shared";
import type { Peer } from "../routing/router.ts";
import { PieceMap } from "../transfer/pieces.ts";
import { attendNeighbour } from "./attend-neighbour.ts";
import { bitAt, packBits } from "./bitmap.ts";
import type { Self } from "./coordinator.ts";
import { Copies } from "./copies.ts";
import { HaveNews } from "./have-news.ts";
import { MAX_NEIGHBOURS } from "./mesh-graph.ts";
import { MAX_HASHES, type Have, type Hello, type NeighbourNews, type SwarmMessage } from "./messages.ts";
import type { SwarmMetrics } from "./metrics.ts";
import type { PieceHashes } from "./piece-hashes.ts";
import type { JoinAbout, Neighbour } from "./swarm.ts";
import { TIMES } from "./times.ts";
import { PIECES_PROTOCOL, type Channel, type Wire } from "./wire.ts";

/** That opened a channel without being named by the coordinator (yet). */
const MAX_UNASKED = 4;
/** Whoever is new opens the channels to those it is told of. Others wait for it; the smaller ID of two is first. */
const OPEN_AFTER_MS = { smaller: 150, larger: 400 };

interface Link extends Neighbour {
  readonly peer: Peer;
  readonly zone: string;
  load: number;
  readonly pieces: PieceMap;
  /** It went with the whole blob. */
  left: boolean;
  /** By the coordinator of now. */
  named: boolean;
  /** The order among those that are alike, lest all members ask the same ones first. */
  readonly tie: number;
  channel: Channel | undefined;
}

export interface NeighboursDeps {
  readonly self: Self;
  readonly zone: string;
  readonly wire: Wire;
  readonly clock: Clock;
  readonly random: () => number;
  readonly logger: Logger;
  readonly metrics: SwarmMetrics;
  readonly hashes: PieceHashes;
  /** What is here, kept by the member. */
  readonly have: PieceMap;
  readonly load: () => number;
  /** Something in the list is different now. */
  readonly changed: () => void;
  /** This neighbour cannot be reached, or went without a word. */
  readonly lost: (id: string) => void;
}

/**
 * The neighbours of one member: who has what, told by themselves. Each piece is told to those that do not have it, in
 * batches; a neighbour whose channel ends is none any more, unless it said that it goes with the whole blob.
 */
export class Neighbours {
  readonly #about: JoinAbout;
  readonly #deps: NeighboursDeps;
  readonly #links = new Map<string, Link>();
  /** At neighbours. */
  readonly #copies: Copies;
  readonly #news: HaveNews;
  readonly #closing = new AbortController();
  /** Channels that are opened soon, unless the other side does. */
  readonly #opening = new Map<string, () => void>();
  #sorted: readonly Neighbour[] | undefined;

  constructor(about: JoinAbout, deps: NeighboursDeps) {
    this.#about = about;
    this.#deps = deps;
    this.#copies = new Copies(about.geometry);
    this.#news = new HaveNews({
      ...deps,
      geometry: about.geometry,
      isSpread: (piece) => this.#isSpread(piece),
      tell: (pieces) => this.#tellAll(pieces),
    });
  }

  get list(): readonly Neighbour[] {
    const own = (link: Link): number => (link.zone === this.#deps.zone ? 0 : 1);
    this.#sorted ??= [...this.#links.values()].toSorted(
      (a, b) => own(a) - own(b) || a.load - b.load || a.tie - b.tie,
    );
    return this.#sorted;
  }

  rarity(piece: number): number {
    return this.#copies.of(piece);
  }

  /** There is another coordinator, who knows nothing of the neighbours there are. */
  renew(): void {
    for (const link of this.#links.values()) link.named = false;
  }

  /** What the coordinator says of members that are neighbours now. `first`: it is the answer to a join. */
  named(news: readonly NeighbourNews[], first: boolean): void {
    if (news.length === 0 || this.#closing.signal.aborted) return;
    for (const one of news) {
      const { id } = one.peer;
      if (id === this.#deps.self.peer.id) continue;
      const known = this.#links.get(id);
      const link = known ?? this.#add(one.peer, one.zone, one.load);
      this.#mark(link, one.have);
      link.named = true;
      link.left ||= one.left;
      if (known === undefined && !one.left) this.#openSoon(link, one, first);
    }
    if (this.#talking > MAX_NEIGHBOURS) {
      this.dismissed([...this.#links].filter(([, link]) => !link.named).map(([id]) => id));
    }
    this.#changed();
  }

  /** What the coordinator says of members that are no neighbours any more. */
  dismissed(ids: readonly string[]): void {
    if (ids.length === 0) return;
    for (const id of ids) {
      const link = this.#links.get(id);
      if (link === undefined || link.left) continue;
      this.#remove(link);
      this.#part(link, false);
    }
    this.#changed();
  }

  /** It cannot be reached: not as a source either. */
  drop(id: string): void {
    const link = this.#links.get(id);
    if (link === undefined) return;
    this.#remove(link);
    link.channel?.close();
    this.#changed();
  }

  /** Another member has opened a channel. False: there are enough. */
  accept(channel: Channel, hello: Hello): boolean {
    const id = channel.peer;
    if (this.#closing.signal.aborted || id === this.#deps.self.peer.id) return false;
    const known = this.#links.get(id);
    if (known === undefined && this.#talking >= MAX_NEIGHBOURS + MAX_UNASKED) return false;
    // Both have opened one: that of the smaller ID is kept, so that both keep the same.
    if (known?.channel !== undefined && id > this.#deps.self.peer.id) return false;
    const link = known ?? this.#add({ id, host: hello.host, port: hello.port }, hello.zone, hello.load);
    const before = link.channel;
    link.channel = channel;
    this.#cancelOpen(id);
    before?.close();
    this.#send(channel, this.#hello());
    this.#greeted(link, hello);
    return true;
  }

  /** A message of a neighbour; false when its channel is not used any more. */
  receive(channel: Channel, message: SwarmMessage): boolean {
    const link = this.#links.get(channel.peer);
    if (link === undefined || link.channel !== channel) return false;
    this.#deps.metrics.messages.inc({ direction: "in", kind: message.kind });
    if (message.kind === "hello") this.#greeted(link, message);
    else if (message.kind === "have") this.#heard(link, message);
    else if (message.kind === "leave" && message.complete) this.#left(link);
    else {
      // It goes without the blob, or has been given other neighbours.
      this.#remove(link);
      this.#changed();
      return false;
    }
    return true;
  }

  /** Its channel has ended. */
  closed(channel: Channel): void {
    const link = this.#links.get(channel.peer);
    if (link === undefined || link.channel !== channel) return;
    link.channel = undefined;
    if (link.left) return;
    this.#remove(link);
    if (this.#closing.signal.aborted) return;
    this.#deps.lost(channel.peer);
    this.#changed();
  }

  /** This node has a piece now. */
  have(piece: number): void {
    this.#news.add(piece);
  }

  /** Others than those who have everything have it, too, and tell of it. */
  #isSpread(piece: number): boolean {
    let whole = 0;
    for (const { complete } of this.#links.values()) if (complete) whole += 1;
    return this.#copies.of(piece) > whole;
  }

  close(complete: boolean): void {
    this.#news.flush();
    this.#closing.abort();
    for (const id of this.#opening.keys()) this.#cancelOpen(id);
    for (const link of this.#links.values()) this.#part(link, complete);
  }

  /** Neighbours that have not left. */
  get #talking(): number {
    return [...this.#links.values()].filter(({ left }) => !left).length;
  }

  #add(peer: Peer, zone: string, load: number): Link {
    const pieces = new PieceMap(this.#about.geometry.count);
    const tie = this.#deps.random();
    const has = (piece: number): boolean => pieces.has(piece);
    const link: Link = {
      peer,
      zone,
      load,
      pieces,
      left: false,
      named: false,
      tie,
      channel: undefined,
      has,
      get complete() {
        return pieces.complete;
      },
    };
    this.#links.set(peer.id, link);
    return link;
  }

  #openSoon(link: Link, news: NeighbourNews, first: boolean): void {
    const { id } = link.peer;
    if (first) {
      void this.#open(link, news);
      return;
    }
    const { smaller, larger } = OPEN_AFTER_MS;
    const cancel = this.#deps.clock.after(this.#deps.self.peer.id < id ? smaller : larger, () => {
      this.#opening.delete(id);
      if (this.#links.get(id) === link && link.channel === undefined) void this.#open(link, news);
    });
    this.#opening.set(id, cancel);
  }

  #cancelOpen(id: string): void {
    this.#opening.get(id)?.();
    this.#opening.delete(id);
  }

  async #open(link: Link, { contact }: NeighbourNews): Promise<void> {
    const { wire, clock, logger } = this.#deps;
    const { id } = link.peer;
    using dial = linkSignal([this.#closing.signal]);
    const cancel = clock.after(TIMES.dial, () => dial.abort());
    let channel: Channel;
    try {
      channel = await wire.open(contact, PIECES_PROTOCOL, dial.signal);
    } catch (error) {
      if (this.#closing.signal.aborted || this.#links.get(id) !== link || link.channel !== undefined) return;
      logger.debug({ err: error, peer: id }, "a neighbour cannot be reached");
      this.#remove(link);
      this.#deps.lost(id);
      this.#changed();
      return;
    } finally {
      cancel();
    }
    if (this.#links.get(id) !== link || link.channel !== undefined || this.#closing.signal.aborted)
      return channel.close();
    link.channel = channel;
    this.#send(channel, this.#hello());
    await attendNeighbour(channel, this).catch((error: unknown) => {
      logger.error({ err: error, peer: id }, "a neighbour's channel failed");
    });
  }

  #hello(): Hello {
    const { digest, size, geometry } = this.#about;
    const { self, zone, load, have } = this.#deps;
    const { host, port } = self.peer;
    const bits = packBits(geometry.count, (piece) => have.has(piece));
    return { kind: "hello", digest, size, host, port, zone, load: load(), have: bits };
  }

  #greeted(link: Link, { have, load }: Hello): void {
    this.#mark(link, have);
    link.load = load;
    // Of what it could have from here, it does not know the hashes yet.
    const wanted: number[] = [];
    for (let piece = 0; piece < this.#about.geometry.count; piece += 1) {
      if (this.#deps.have.has(piece) && !link.pieces.has(piece)) wanted.push(piece);
    }
    this.#tell(link, wanted);
    this.#changed();
  }

  #heard(link: Link, { pieces, hashes, load }: Have): void {
    link.load = load;
    for (const hash of hashes) this.#deps.hashes.learn(hash);
    for (const piece of pieces) if (piece < this.#about.geometry.count) this.#gained(link, piece);
    this.#changed();
  }

  /** Says so before it closes: a channel that ends without a word is a node that is gone. */
  #part({ channel }: Link, complete: boolean): void {
    if (channel === undefined) return;
    this.#send(channel, { kind: "leave", complete });
    channel.close();
  }

  #left(link: Link): void {
    link.left = true;
    for (let piece = 0; piece < this.#about.geometry.count; piece += 1) this.#gained(link, piece);
    this.#changed();
  }

  #mark(link: Link, bits: Uint8Array): void {
    for (let piece = 0; piece < this.#about.geometry.count; piece += 1) {
      if (bitAt(bits, piece)) this.#gained(link, piece);
    }
  }

  #gained({ pieces }: Link, piece: number): void {
    if (pieces.has(piece)) return;
    pieces.set(piece);
    this.#copies.add(piece);
  }

  /** Nothing is to be had there any more. */
  #remove({ peer, pieces }: Link): void {
    if (this.#links.delete(peer.id)) this.#copies.remove(pieces);
  }

  #tellAll(news: readonly number[]): void {
    for (const link of this.#links.values()) {
      this.#tell(
        link,
        news.filter((piece) => !link.pieces.has(piece)),
      );
    }
  }

  #tell({ channel }: Link, pieces: readonly number[]): void {
    if (channel === undefined) return;
    const { hashes, load } = this.#deps;
    for (let at = 0; at < pieces.length; at += MAX_HASHES) {
      const some = pieces.slice(at, at + MAX_HASHES);
      const signed = some.map((piece) => hashes.of(piece)).filter((hash) => hash !== undefined);
      this.#send(channel, { kind: "have", pieces: some, hashes: signed, load: load() });
    }
  }

  #send(channel: Channel, message: SwarmMessage): void {
    this.#deps.metrics.messages.inc({ direction: "out", kind: message.kind });
    channel.send(message);
  }

  #changed(): void {
    this.#sorted = undefined;
    this.#deps.changed();
  }
}
