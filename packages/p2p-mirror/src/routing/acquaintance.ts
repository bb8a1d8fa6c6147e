import type { PeerId } from "@libp2p/interface";
import { linkSignal, type Logger } from "@p2p-mirror/shared";
import type { HostPort } from "./addresses.ts";
import type { Member, Members } from "./members.ts";
import { decodePeers } from "./peer-list.ts";
import { MAX_MET } from "./records-service.ts";
import type { Message } from "./records-protocol.ts";

export interface AcquaintanceDeps {
  readonly members: Members;
  readonly self: string;
  send(member: Member, message: Message, signal: AbortSignal): Promise<Uint8Array>;
  /** Connects to a node that was heard of. */
  connect(peerId: PeerId, address: HostPort, signal: AbortSignal): Promise<void>;
  /** A node was heard of that cannot be reached. */
  check(member: Member): Promise<void>;
  onHeard(): void;
  readonly logger: Logger;
}

/** Connections a node makes by itself: a full mesh up to this size; in larger clusters the others are dialled when needed. */
const MAX_OWN_CONNECTIONS = 100;
const ASK_TIMEOUT_MS = 2_000;
/** Members asked in one walk: with 128 in an answer enough to hear of a thousand nodes. */
const MAX_ASKED = 64;
const PARALLEL = 4;
/** Between walks: this after somebody came, doubled each time nobody did. */
const MIN_AGAIN_MS = 1_000;
const MAX_AGAIN_MS = 30_000;

/**
 * Learns who else is in the cluster by asking members whom they are connected to, member after member, until nobody
 * new is named. kad-dht's own table fills by lookups, over minutes; until then records of a young cluster would be put
 * where nobody looks for them.
 */
export class Acquaintance {
  readonly #deps: AcquaintanceDeps;
  readonly #closing = new AbortController();
  readonly #asked = new Set<string>();
  #walking: Promise<void> | undefined;
  #again: NodeJS.Timeout | undefined;
  #complete = false;
  #wanted = false;
  /** Connections that may still be made in this walk: counted at its begin, not for each node that is named. */
  #mayConnect = 0;
  #againMs = MIN_AGAIN_MS;

  constructor(deps: AcquaintanceDeps) {
    this.#deps = deps;
  }

  /** The last walk ended because there was nobody left to ask, not because it had asked enough. */
  get complete(): boolean {
    return this.#complete;
  }

  start(): void {
    this.#schedule();
  }

  /** Somebody came: ask it, and whom it names. */
  memberCame(): void {
    this.#complete = false;
    this.#againMs = MIN_AGAIN_MS;
    this.#schedule();
    this.#walk();
  }

  async close(): Promise<void> {
    this.#closing.abort();
    clearTimeout(this.#again);
    await this.#walking;
  }

  #schedule(): void {
    clearTimeout(this.#again);
    if (this.#closing.signal.aborted) return;
    this.#again = setTimeout(() => {
      this.#againMs = Math.min(this.#againMs * 2, MAX_AGAIN_MS);
      this.#askAnother();
      this.#schedule();
    }, this.#againMs);
  }

  /** A random member is asked again, and everybody it names that is new. */
  #askAnother(): void {
    const asked = [...this.#asked];
    const random = asked[Math.floor(Math.random() * asked.length)];
    if (random !== undefined) this.#asked.delete(random);
    for (const id of asked) if (this.#deps.members.get(id) === undefined) this.#asked.delete(id);
    this.#walk();
  }

  /** One walk at a time; who comes during one may be asked by the next only. */
  #walk(): void {
    this.#wanted = true;
    this.#walking ??= this.#walkWhileWanted().finally(() => {
      this.#walking = undefined;
    });
  }

  async #walkWhileWanted(): Promise<void> {
    while (this.#wanted && !this.#closing.signal.aborted) {
      this.#wanted = false;
      await this.#walkOnce();
    }
  }

  async #walkOnce(): Promise<void> {
    // Heard of, and not reached then.
    let connected = 0;
    for (const member of this.#deps.members) if (member.connected) connected += 1;
    this.#mayConnect = MAX_OWN_CONNECTIONS - connected;
    for (const member of this.#deps.members) {
      if (this.#mayConnect <= 0) break;
      const address = this.#deps.members.libp2pAddress(member.id);
      if (!member.connected && address !== undefined) await this.#connect(member.peerId, address);
    }
    let left = MAX_ASKED;
    for (
      let next = this.#nextToAsk(PARALLEL);
      next.length > 0 && left > 0;
      next = this.#nextToAsk(PARALLEL)
    ) {
      if (this.#closing.signal.aborted) return;
      left -= next.length;
      await Promise.all(next.map(async (member) => this.#ask(member)));
    }
    this.#complete = left > 0;
  }

  #nextToAsk(limit: number): Member[] {
    const next: Member[] = [];
    for (const member of this.#deps.members) {
      if (!member.connected || this.#asked.has(member.id)) continue;
      this.#asked.add(member.id);
      next.push(member);
      if (next.length >= limit) break;
    }
    return next;
  }

  async #ask(member: Member): Promise<void> {
    const deadline = linkSignal([this.#closing.signal], ASK_TIMEOUT_MS);
    try {
      const answer = await this.#deps.send(member, { operation: "meet", keys: [] }, deadline.signal);
      for (const { peerId, host, port } of decodePeers(answer, MAX_MET)) {
        const id = peerId.toString();
        if (id === this.#deps.self || !this.#deps.members.heardOf(peerId, { host, port })) continue;
        this.#deps.onHeard();
        await this.#connect(peerId, { host, port });
      }
    } catch (error) {
      this.#deps.logger.debug({ err: error, peer: member.id }, "a member did not say whom it knows");
    } finally {
      deadline.release();
    }
  }

  async #connect(peerId: PeerId, address: HostPort): Promise<void> {
    if (this.#mayConnect <= 0) return;
    this.#mayConnect -= 1;
    const deadline = linkSignal([this.#closing.signal], ASK_TIMEOUT_MS);
    try {
      await this.#deps.connect(peerId, address, deadline.signal);
    } catch (error) {
      this.#mayConnect += 1;
      this.#deps.logger.debug(
        { err: error, peer: peerId.toString() },
        "a node that was named does not answer",
      );
      const member = this.#deps.members.get(peerId.toString());
      if (member !== undefined) await this.#deps.check(member);
    } finally {
      deadline.release();
    }
  }
}
