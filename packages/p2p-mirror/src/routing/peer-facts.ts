import type { MeshNode } from "./libp2p-node.ts";

/** What is known of a node beside where it is; nothing is decided by it. */
export interface PeerFacts {
  /** Of its program; undefined while it has not said so. */
  readonly version: string | undefined;
  /** "": not known. */
  readonly zone: string;
  /** Milliseconds of a round trip, by the last ping. */
  readonly latencyMs: number | undefined;
}

export interface OwnFacts {
  readonly version: string;
  readonly zone: string;
}

/** What identify calls the agent of a node: `p2p-mirror/0.1.0`, and ` zone/eu-1` where it knows its own. */
export const agentOf = ({ version, zone }: OwnFacts): string =>
  `p2p-mirror/${version}${zone === "" ? "" : ` zone/${zone}`}`;

/** Others may say what they like; what is no version or zone as we write them is not taken. */
const AGENT = /^p2p-mirror\/([\w.+-]{1,40})(?: zone\/([\w.-]{1,63}))?$/;

/** Remembers what connected nodes say of themselves by identify, which both sides do at each connection. */
export class PeerFactsBook {
  readonly #node: MeshNode;
  readonly #said = new Map<string, OwnFacts>();

  constructor(node: MeshNode) {
    this.#node = node;
    node.addEventListener("peer:identify", ({ detail: { peerId, agentVersion = "" } }) => {
      const [, version, zone = ""] = AGENT.exec(agentVersion) ?? [];
      if (version !== undefined) this.#said.set(peerId.toString(), { version, zone });
    });
    node.addEventListener("peer:disconnect", ({ detail }) => void this.#said.delete(detail.toString()));
  }

  of(id: string): PeerFacts {
    const said = this.#said.get(id);
    const connection = this.#node.getConnections().find(({ remotePeer }) => remotePeer.toString() === id);
    return { version: said?.version, zone: said?.zone ?? "", latencyMs: connection?.rtt };
  }
}
