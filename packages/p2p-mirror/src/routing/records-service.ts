import type { Connection } from "@libp2p/interface";
import type { KeyHash } from "./key.ts";
import type { Members } from "./members.ts";
import type { RoutingMetrics } from "./metrics.ts";
import { encodePeers } from "./peer-list.ts";
import type { ProviderStore } from "./provider-store.ts";
import type { Message } from "./records-protocol.ts";
import type { Peer } from "./router.ts";

export interface RecordsServiceDeps {
  readonly self: Peer;
  readonly store: ProviderStore;
  /** What this node has itself. */
  readonly own: ReadonlySet<KeyHash>;
  readonly members: Members;
  /** Makes sure that the sender's addresses are known: a record without them is of no use to anybody. */
  identify(connection: Connection): Promise<void>;
  readonly metrics: RoutingMetrics;
}

/** Peers in an answer to `find`: all that is kept for a key. */
export const MAX_FOUND = 33;
/** Peers in an answer to `meet`; a random part where a node has more. */
export const MAX_MET = 128;

function count(done: number): Uint8Array {
  const answer = Buffer.alloc(4);
  answer.writeUInt32BE(done);
  return answer;
}

/** Answers what other nodes ask, out of this node's own tables. */
export class RecordsService {
  readonly #deps: RecordsServiceDeps;

  constructor(deps: RecordsServiceDeps) {
    this.#deps = deps;
  }

  async answer({ operation, keys }: Message, connection: Connection): Promise<Uint8Array> {
    const { store, metrics } = this.#deps;
    const sender = connection.remotePeer.toString();
    switch (operation) {
      case "announce":
        await this.#deps.identify(connection);
        for (const key of keys) store.add(key, sender);
        metrics.recordsHeld.set(store.size);
        return count(keys.length);
      case "withdraw": {
        const removed = keys.filter((key) => store.remove(key, sender)).length;
        metrics.recordsHeld.set(store.size);
        return count(removed);
      }
      case "leave": {
        const removed = store.removePeer(sender);
        metrics.recordsHeld.set(store.size);
        return count(removed);
      }
      case "find":
        return encodePeers(this.#providers(keys[0]));
      case "meet":
        return encodePeers(this.#connected());
    }
    throw new RangeError(`no such operation: ${String(operation)}`);
  }

  *#providers(key: KeyHash | undefined): Generator<Peer> {
    if (key === undefined) return;
    const { self, store, own, members } = this.#deps;
    if (own.has(key)) yield self;
    for (const id of store.providersOf(key)) {
      const peer = members.peer(id);
      if (peer !== undefined) yield peer;
    }
  }

  /** Only nodes with an open connection: nobody should hear again of a node that is dead. */
  *#connected(): Generator<Peer> {
    const connected = [...this.#deps.members].filter((member) => member.connected);
    const skip = connected.length > MAX_MET ? Math.floor(Math.random() * connected.length) : 0;
    for (let i = 0; i < Math.min(connected.length, MAX_MET); i += 1) {
      const id = connected[(skip + i) % connected.length]?.id ?? "";
      const address = this.#deps.members.libp2pAddress(id);
      if (address !== undefined) yield { id, ...address };
    }
  }
}
