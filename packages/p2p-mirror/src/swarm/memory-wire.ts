import { raceSignal, type Clock } from "@p2p-mirror/shared";
import { channelPair, type Deliver } from "./channel-pair.ts";
import type { SwarmCodec } from "./codec.ts";
import type { SwarmMessage } from "./messages.ts";
import type { Channel, Contact, SwarmProtocol, Wire } from "./wire.ts";

export interface MemoryNetworkOptions {
  readonly clock: Clock;
  /** Milliseconds a message takes from one node to the other. */
  readonly latency: (from: string, to: string) => number;
  /** Messages go through it, as on a real wire; without, they are handed over as they are (large simulations). */
  readonly codec?: SwarmCodec;
}

interface Node {
  readonly id: string;
  readonly handlers: Map<SwarmProtocol, (channel: Channel) => void>;
  readonly channels: Set<Tracked>;
  /** Dead: what others do fails at once. Silent: nothing comes from it or to it, and nobody is told. */
  state: "alive" | "dead" | "silent";
}

interface Tracked {
  /** Ends both sides, as when a connection is reset. */
  cut(): void;
}

interface Road {
  readonly from: string;
  readonly to: string;
  /** What arrives when there is a way again. */
  readonly held: (() => void)[];
}

/** What went over the network, by sender and kind. */
export type Traffic = Map<string, Map<SwarmMessage["kind"], number>>;

/** Wires between nodes of one process: the Wire port with modelled latency, faults, and a count of what is sent. */
export class MemoryNetwork {
  readonly traffic: Traffic = new Map();
  readonly #options: MemoryNetworkOptions;
  readonly #nodes = new Map<string, Node>();
  readonly #blocked = new Set<Road>();
  #parted: (a: string, b: string) => boolean = () => false;

  constructor(options: MemoryNetworkOptions) {
    this.#options = options;
  }

  /** A node comes, or comes again. */
  node(id: string): Wire {
    const node: Node = { id, handlers: new Map(), channels: new Set(), state: "alive" };
    this.#nodes.set(id, node);
    return {
      open: (to, protocol, signal) => this.#open(node, to, protocol, signal),
      handle: (protocol, onChannel) => {
        if (node.handlers.has(protocol)) return Promise.reject(new Error(`${protocol} is handled already`));
        node.handlers.set(protocol, onChannel);
        return Promise.resolve(() => {
          node.handlers.delete(protocol);
          return Promise.resolve();
        });
      },
    };
  }

  /** As kill -9: its connections are reset, and it cannot be reached. */
  kill(id: string): void {
    const node = this.#nodes.get(id);
    if (node === undefined) return;
    node.state = "dead";
    for (const channel of node.channels) channel.cut();
  }

  /** Every connection there is now is reset; nobody is gone. */
  reset(): void {
    for (const { channels } of this.#nodes.values()) for (const channel of channels) channel.cut();
  }

  /** As SIGSTOP, or a cable that is pulled: nothing goes to it or comes from it any more, and nobody notices by itself. */
  silence(id: string): void {
    const node = this.#nodes.get(id);
    if (node !== undefined) node.state = "silent";
  }

  wake(id: string): void {
    const node = this.#nodes.get(id);
    if (node?.state === "silent") node.state = "alive";
    this.#unblock();
  }

  /** Between which nodes nothing goes any more, until the next call. */
  part(parted: (a: string, b: string) => boolean): void {
    this.#parted = parted;
    this.#unblock();
  }

  /** Messages sent by a node, or by all. */
  sent(id?: string): number {
    let count = 0;
    for (const [node, kinds] of this.traffic) {
      if (id === undefined || id === node) for (const one of kinds.values()) count += one;
    }
    return count;
  }

  async #open(from: Node, to: Contact, protocol: SwarmProtocol, signal: AbortSignal): Promise<Channel> {
    signal.throwIfAborted();
    // Dialling and the protocol's negotiation: there and back.
    await raceSignal(
      new Promise<void>((resolve) => {
        if (!this.#reaches(from.id, to.id)) return;
        this.#later(2 * this.#options.latency(from.id, to.id), resolve);
      }),
      signal,
    );
    const node = this.#nodes.get(to.id);
    const handler = node?.handlers.get(protocol);
    if (node === undefined || node.state === "dead" || from.state === "dead" || handler === undefined) {
      throw new Error(`${to.id} cannot be reached`);
    }
    const [mine, theirs] = this.#connect(from, node);
    handler(theirs);
    return mine;
  }

  #connect(from: Node, to: Node): [Channel, Channel] {
    const [raw, far] = channelPair(from.id, to.id, {
      toOne: this.#road(to.id, from.id),
      toOther: this.#road(from.id, to.id),
    });
    const forget = (): void => {
      for (const node of [from, to]) node.channels.delete(tracked);
    };
    const tracked: Tracked = {
      cut: () => {
        forget();
        raw.close();
        far.close();
      },
    };
    for (const node of [from, to]) node.channels.add(tracked);
    return [this.#counted(from.id, raw, forget), this.#counted(to.id, far, forget)];
  }

  /** In order, each after the latency. What cannot get there now gets there later: TCP does not lose anything. */
  #road(from: string, to: string): Deliver {
    const road: Road = { from, to, held: [] };
    let last = 0;
    return (arrive) => {
      const { clock, latency } = this.#options;
      const at = Math.max(last, clock.now() + latency(from, to));
      last = at;
      this.#later(at - clock.now(), () => {
        if (road.held.length === 0 && this.#reaches(from, to)) {
          arrive();
          return;
        }
        road.held.push(arrive);
        this.#blocked.add(road);
      });
    };
  }

  /** There may be ways again where there were none. */
  #unblock(): void {
    for (const road of this.#blocked) {
      if (!this.#reaches(road.from, road.to)) continue;
      this.#blocked.delete(road);
      for (const arrive of road.held.splice(0)) arrive();
    }
  }

  #counted(from: string, channel: Channel, closed: () => void): Channel {
    const { codec } = this.#options;
    return {
      ...channel,
      close: () => {
        closed();
        channel.close();
      },
      send: (message) => {
        const kinds = this.traffic.get(from) ?? new Map<SwarmMessage["kind"], number>();
        this.traffic.set(from, kinds);
        kinds.set(message.kind, (kinds.get(message.kind) ?? 0) + 1);
        channel.send(codec === undefined ? message : codec.decode(codec.encode(message)));
      },
    };
  }

  #reaches(from: string, to: string): boolean {
    const silent = [from, to].some((id) => this.#nodes.get(id)?.state === "silent");
    return !silent && !this.#parted(from, to);
  }

  #later(ms: number, callback: () => void): void {
    this.#options.clock.after(ms, callback);
  }
}
