import type { Stream, StreamHandler } from "@libp2p/interface";
import { peerIdFromString } from "@libp2p/peer-id";
import { tcpMultiaddr } from "./addresses.ts";
import type { MeshNode } from "./libp2p-node.ts";
import type { NodeAddress } from "./router.ts";

/** Streams of other protocols between the nodes that the router has to do with. */
export class NodeStreams {
  readonly #node: MeshNode;

  constructor(node: MeshNode) {
    this.#node = node;
  }

  /** A stream to a node, which is dialled at `to` when there is no connection. */
  async openStream(to: NodeAddress, protocol: string, signal: AbortSignal): Promise<Stream> {
    const peerId = peerIdFromString(to.id);
    if (this.#node.getConnections(peerId).length === 0) {
      await this.#node.dial(tcpMultiaddr(to).encapsulate(`/p2p/${to.id}`), { signal });
    }
    return this.#node.dialProtocol(peerId, protocol, { signal });
  }

  /** Streams that others open, at most so many by each of them. The returned function takes it back. */
  async handleStreams(
    protocol: string,
    handler: StreamHandler,
    maxStreamsPerPeer: number,
  ): Promise<() => Promise<void>> {
    await this.#node.handle(protocol, handler, {
      maxInboundStreams: maxStreamsPerPeer,
      maxOutboundStreams: maxStreamsPerPeer,
    });
    return () => this.#node.unhandle(protocol);
  }
}
