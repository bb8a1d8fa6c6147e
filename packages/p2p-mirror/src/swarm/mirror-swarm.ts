import { ConfigError, type Clock, type Digest, type Logger, type Service } from "@p2p-mirror/shared";
import { MAX_PIECES } from "./bitmap.ts";
import { Bans } from "./bans.ts";
import { Coordinator, type Closest, type Self } from "./coordinator.ts";
import { Membership } from "./membership.ts";
import { MAX_ZONE_BYTES } from "./messages.ts";
import type { SwarmMetrics } from "./metrics.ts";
import { attendNeighbour } from "./attend-neighbour.ts";
import { PieceHashes } from "./piece-hashes.ts";
import type { PieceSigner } from "./piece-signer.ts";
import type { JoinAbout, Lease, Swarm, SwarmMember } from "./swarm.ts";
import { TIMES } from "./times.ts";
import { PIECES_PROTOCOL, type Channel, type Wire } from "./wire.ts";

export interface SwarmOptions {
  /** Where this node is; nodes of one zone give each other pieces first. At most 63 ASCII characters; default "", unknown. */
  readonly zone?: string;
  /** Members of one digest that fetch from upstream at a time. Default 8. */
  readonly maxUpstreamFetchers?: number;
}

export interface SwarmDeps {
  readonly self: Self;
  readonly wire: Wire;
  readonly closest: Closest;
  readonly clock: Clock;
  /** From 0 to 1. */
  readonly random: () => number;
  readonly signer: PieceSigner;
  /** Share of this node's upload slots that are busy, 0 to 1. */
  readonly load: () => number;
  readonly logger: Logger;
  readonly metrics: SwarmMetrics;
}

export interface MirrorSwarm extends Swarm, Service {
  /** For the status page: members of a digest that this node coordinates; empty when it does not. */
  coordinated(digest: Digest): readonly string[];
  /** Who of them is to fetch what from upstream now. */
  leased(digest: Digest): readonly (Lease & { readonly holder: string })[];
  /** Peers whose signed hashes were refuted. */
  readonly banned: readonly string[];
}

const DEFAULT_FETCHERS = 8;
const MAX_ROOMS = 1_024;
const MAX_MEMBERS = 5_000;
/** About 25 KiB each. They outlive the membership: others ask for pieces, and a try that went wrong tells who lied. */
const MAX_HASHED = 256;

/** What other nodes take for a zone; a message with anything else would be refused as a whole. */
const ZONE = new RegExp(`^[\\x20-\\x7e]{0,${MAX_ZONE_BYTES}}$`);

/**
 * The swarm of a node: member where it fetches, coordinator where it is the closest.
 * @throws ConfigError when the zone is none.
 */
export function createSwarm(options: SwarmOptions, deps: SwarmDeps): MirrorSwarm {
  const zone = options.zone ?? "";
  if (!ZONE.test(zone)) {
    throw new ConfigError("zone", zone.slice(0, 100), `use up to ${MAX_ZONE_BYTES} ASCII characters`);
  }
  // Others refuse what is out of bounds.
  const load = (): number => Math.min(1, Math.max(0, deps.load() || 0));
  return new NodeSwarm(options, { ...deps, load });
}

const keyOf = (about: { readonly digest: Digest; readonly size: number }): string =>
  `${about.digest} ${about.size}`;

class NodeSwarm implements MirrorSwarm {
  readonly name = "swarm";
  readonly #zone: string;
  readonly #deps: SwarmDeps;
  readonly #coordinator: Coordinator;
  readonly #bans: Bans;
  readonly #memberships = new Map<string, Membership>();
  readonly #hashes = new Map<string, PieceHashes>();
  #unhandle: (() => Promise<void>) | undefined;
  #closed = false;

  constructor(options: SwarmOptions, deps: SwarmDeps) {
    this.#zone = options.zone ?? "";
    this.#deps = deps;
    this.#bans = new Bans(deps);
    this.#coordinator = new Coordinator(
      {
        maxFetchers: options.maxUpstreamFetchers ?? DEFAULT_FETCHERS,
        maxRooms: MAX_ROOMS,
        maxMembers: MAX_MEMBERS,
      },
      deps,
    );
  }

  async start(): Promise<void> {
    await this.#coordinator.start();
    this.#unhandle = await this.#deps.wire.handle(
      PIECES_PROTOCOL,
      (channel) => void this.#serveNeighbour(channel),
    );
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#memberships.values()].map((member) => member.leave()));
    await this.#unhandle?.();
    await this.#coordinator.close();
  }

  coordinated(digest: Digest): readonly string[] {
    return this.#coordinator.members(digest);
  }

  leased(digest: Digest): readonly (Lease & { readonly holder: string })[] {
    return this.#coordinator.leases(digest);
  }

  get memberships(): number {
    return this.#memberships.size;
  }

  get banned(): readonly string[] {
    return this.#bans.peers;
  }

  join(about: JoinAbout, signal: AbortSignal): SwarmMember {
    const key = keyOf(about);
    if (this.#memberships.has(key)) throw new Error(`a second membership of ${about.digest}`);
    const hashes = this.hashes(about);
    // Nobody can be asked about more pieces than fit a message: such a member is alone.
    const closest: Closest = about.geometry.count > MAX_PIECES ? () => [] : this.#deps.closest;
    const leave = (): void => void membership.leave();
    const membership = new Membership(about, {
      ...this.#deps,
      closest,
      zone: this.#zone,
      coordinator: this.#coordinator,
      hashes,
      ended: () => {
        signal.removeEventListener("abort", leave);
        this.#memberships.delete(key);
        // Of small objects, whose digest is all they need, there are many.
        if (hashes.isEmpty) this.#hashes.delete(key);
        this.#deps.metrics.memberships.set(this.#memberships.size);
      },
    });
    this.#memberships.set(key, membership);
    this.#deps.metrics.memberships.set(this.#memberships.size);
    signal.addEventListener("abort", leave, { once: true });
    if (signal.aborted || this.#closed) leave();
    return membership;
  }

  hashes(about: Pick<JoinAbout, "digest" | "size" | "geometry">): PieceHashes {
    const key = keyOf(about);
    const hashes = this.#hashes.get(key) ?? this.#newHashes(about);
    // The one that was asked for last goes last.
    this.#hashes.delete(key);
    this.#hashes.set(key, hashes);
    for (const oldest of this.#hashes.keys()) {
      if (this.#hashes.size <= MAX_HASHED) break;
      if (!this.#memberships.has(oldest)) this.#hashes.delete(oldest);
    }
    return hashes;
  }

  #newHashes({ digest, size, geometry }: Pick<JoinAbout, "digest" | "size" | "geometry">): PieceHashes {
    return new PieceHashes(
      { digest, size, count: geometry.count },
      {
        signer: this.#deps.signer,
        isBanned: (peer) => this.#bans.has(peer),
        ban: (peer) => this.#bans.add(peer),
        refused: (signer) => {
          this.#deps.metrics.refusedHashes.inc();
          this.#deps.logger.debug({ signer, digest }, "the hash of a piece was not taken");
        },
      },
    );
  }

  /** Another member opens a channel: it says first of which blob. */
  async #serveNeighbour(channel: Channel): Promise<void> {
    const cancel = this.#deps.clock.after(TIMES.dial, () => channel.close());
    let membership: Membership | undefined;
    try {
      await attendNeighbour(channel, {
        receive: (from, message) => {
          if (membership !== undefined) return membership.neighbourhood.receive(from, message);
          cancel();
          if (message.kind !== "hello") return false;
          membership = this.#memberships.get(keyOf(message));
          return membership?.neighbourhood.accept(from, message) === true;
        },
        closed: (gone) => membership?.neighbourhood.closed(gone),
      });
    } catch (error) {
      this.#deps.logger.error({ err: error, peer: channel.peer }, "a neighbour's channel failed");
    } finally {
      cancel();
    }
  }
}
