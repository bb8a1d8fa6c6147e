import type { PeerId } from "@libp2p/interface";
import type { Multiaddr } from "@multiformats/multiaddr";
import { dataPlaneOf, libp2pAddressOf, type HostPort } from "./addresses.ts";
import { positionOfPeer } from "./key.ts";
import type { Peer } from "./router.ts";

/** A node of the cluster as this one sees it. */
export interface Member {
  readonly id: string;
  readonly peerId: PeerId;
  /** First 32 bits of its place in Kademlia's space. */
  readonly position: number;
  connected: boolean;
}

interface Addresses {
  readonly dataPlane: HostPort | undefined;
  readonly libp2p: HostPort | undefined;
}

/** Of nodes that were only heard of; a peer must not fill the memory with invented ones. */
const MAX_MEMBERS = 5_000;
/** Nodes that are no member (yet, or any more) have addresses too. */
const MAX_ADDRESSES = 10_000;

/**
 * The nodes that speak our protocol, by own experience or by a member's word, and were not found dead since: where
 * records can go; and the addresses of all nodes that announced theirs. It is told what happens and decides nothing.
 */
export class Members {
  readonly #members = new Map<string, Member>();
  readonly #addresses = new Map<string, Addresses>();

  #turnedAway = false;

  /** There are more nodes than are remembered here. */
  get turnedAway(): boolean {
    return this.#turnedAway;
  }

  get size(): number {
    return this.#members.size;
  }

  [Symbol.iterator](): IterableIterator<Member> {
    return this.#members.values();
  }

  get(id: string): Member | undefined {
    return this.#members.get(id);
  }

  connected(peerId: PeerId): Member {
    const member = this.#memberOf(peerId);
    member.connected = true;
    return member;
  }

  /** Another node is connected to this one. False when that is nothing new. */
  heardOf(peerId: PeerId, libp2p: HostPort): boolean {
    const id = peerId.toString();
    if (this.#members.has(id)) return false;
    if (this.#members.size >= MAX_MEMBERS) {
      this.#turnedAway = true;
      return false;
    }
    this.#memberOf(peerId);
    if (!this.#addresses.has(id)) this.#addresses.set(id, { dataPlane: undefined, libp2p });
    return true;
  }

  #memberOf(peerId: PeerId): Member {
    const id = peerId.toString();
    const known = this.#members.get(id);
    if (known !== undefined) return known;
    const position = positionOfPeer(peerId.toMultihash().bytes);
    const member: Member = { id, peerId, position, connected: false };
    this.#members.set(id, member);
    return member;
  }

  disconnected(id: string): Member | undefined {
    const member = this.#members.get(id);
    if (member !== undefined) member.connected = false;
    return member;
  }

  /** A node that is gone; its addresses go too. */
  remove(id: string): void {
    // There is room again; whoever was turned away is heard of again by the next walk.
    if (this.#members.delete(id)) this.#turnedAway = false;
    this.#addresses.delete(id);
  }

  /** Reads a node's own addresses; what it announced last counts. */
  learn(id: string, announced: readonly Multiaddr[]): void {
    const dataPlane = dataPlaneOf(announced);
    const libp2p = libp2pAddressOf(announced);
    if (dataPlane === undefined && libp2p === undefined) return;
    this.#addresses.delete(id);
    this.#addresses.set(id, { dataPlane, libp2p });
    if (this.#addresses.size <= MAX_ADDRESSES) return;
    for (const [oldest] of this.#addresses) {
      if (this.#members.has(oldest)) continue;
      this.#addresses.delete(oldest);
      return;
    }
  }

  /** The node with its peer data plane; undefined until it said where that is. */
  peer(id: string): Peer | undefined {
    const address = this.#addresses.get(id)?.dataPlane;
    return address === undefined ? undefined : { id, ...address };
  }

  libp2pAddress(id: string): HostPort | undefined {
    return this.#addresses.get(id)?.libp2p;
  }

  /** The `count` members closest to a position by Kademlia's measure, closest first. */
  closest(position: number, count: number): Member[] {
    const found: { distance: number; member: Member }[] = [];
    for (const member of this.#members.values()) {
      const distance = (member.position ^ position) >>> 0;
      const last = found[count - 1];
      if (last !== undefined && distance >= last.distance) continue;
      let at = Math.min(found.length, count - 1);
      while (at > 0 && (found[at - 1]?.distance ?? -1) > distance) {
        const before = found[at - 1];
        if (before !== undefined) found[at] = before;
        at -= 1;
      }
      found[at] = { distance, member };
    }
    return found.map((one) => one.member);
  }
}
