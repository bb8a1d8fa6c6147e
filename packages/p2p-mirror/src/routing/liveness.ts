import type { Logger } from "@p2p-mirror/shared";
import { removeFromTable, type MeshNode } from "./libp2p-node.ts";
import type { Member, Members } from "./members.ts";
import { isListening } from "./probe.ts";
import type { ProviderStore } from "./provider-store.ts";

export interface LivenessDeps {
  readonly node: MeshNode;
  readonly members: Members;
  readonly store: ProviderStore;
  /** A member was taken out: our records that it kept must go elsewhere. */
  onGone(): void;
  readonly logger: Logger;
}

/**
 * Takes out members that are dead: kad-dht keeps them in its table until a bucket is full, and their records until they
 * expire, and every lookup would meet them.
 */
export class Liveness {
  readonly #deps: LivenessDeps;
  readonly #closing = new AbortController();
  readonly #checks = new Map<string, Promise<void>>();

  constructor(deps: LivenessDeps) {
    this.#deps = deps;
  }

  /** Something went wrong with a member: resolves when it is known whether it still is one. Never rejects. */
  check(member: Member): Promise<void> {
    const running = this.#checks.get(member.id);
    if (running !== undefined) return running;
    const check = this.#checkOnce(member)
      .catch((error: unknown) => {
        if (this.#closing.signal.aborted) return;
        this.#deps.logger.warn({ err: error, peer: member.id }, "a node could not be taken out");
      })
      .finally(() => this.#checks.delete(member.id));
    this.#checks.set(member.id, check);
    return check;
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.all(this.#checks.values());
  }

  async #checkOnce(member: Member): Promise<void> {
    const { node, members, store, logger } = this.#deps;
    const address = members.libp2pAddress(member.id);
    const alive = address !== undefined && (await isListening(address, this.#closing.signal));
    if (alive || this.#closing.signal.aborted) return;
    if (member.connected && node.getConnections(member.peerId).length > 0) return;
    members.remove(member.id);
    const records = store.removePeer(member.id);
    logger.debug({ peer: member.id, records }, "a node is gone");
    this.#deps.onGone();
    await removeFromTable(node, member.peerId);
    await node.peerStore.delete(member.peerId);
  }
}
