import { linkSignal, type Clock, type Logger } from "@p2p-mirror/shared";
import type { Self } from "./coordinator.ts";
import type { HandBack, Join, Progress, SwarmMessage, Told } from "./messages.ts";
import type { SwarmMetrics } from "./metrics.ts";
import { TIMES } from "./times.ts";
import { SWARM_PROTOCOL, type Channel, type Contact, type Wire } from "./wire.ts";

export interface LinkDeps {
  readonly self: Self;
  readonly wire: Wire;
  /** This node's own coordinator. */
  readonly coordinator: { connect(): Channel };
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: SwarmMetrics;
}

const GRACE_MS = 100;

/** The member on whose behalf the link speaks. */
export interface LinkOwner {
  readonly holding: boolean;
  /** What is new since the last report. */
  takeProgress(): Progress;
  told(told: Told, first: boolean): void;
}

/**
 * How it ended: the coordinator is gone or silent, or has named a closer one. `joined`: it had answered. `broken`: the
 * channel ended by itself, which says nothing of the node at its other end.
 */
export type LinkEnd =
  | { readonly kind: "lost"; readonly joined: boolean; readonly broken: boolean }
  | { readonly kind: "redirected"; readonly joined: boolean; readonly to: Contact };

/** One member's channel to one coordinator: joins, reports, and notices when there is no answer. */
export class CoordinatorLink {
  readonly #to: Contact;
  readonly #owner: LinkOwner;
  readonly #deps: LinkDeps;
  #channel: Channel | undefined;
  #joined = false;
  #joinedAt = 0;
  #silent = false;
  /** The next report is at the pace of a holder. */
  #reportsSoon = false;
  #cancelReport: (() => void) | undefined;
  #cancelWatch: (() => void) | undefined;

  constructor(to: Contact, owner: LinkOwner, deps: LinkDeps) {
    this.#to = to;
    this.#owner = owner;
    this.#deps = deps;
  }

  /** Joins and stays until it ends. Never rejects. */
  async attend(join: Join, signal: AbortSignal): Promise<LinkEnd> {
    const { logger } = this.#deps;
    try {
      const channel = await this.#open(signal);
      this.#channel = channel;
      this.#send(join);
      this.#watch();
      for await (const message of channel.messages) {
        this.#deps.metrics.messages.inc({ direction: "in", kind: message.kind });
        if (message.kind === "redirect") return { kind: "redirected", joined: this.#joined, to: message.to };
        if (message.kind === "told") this.#onTold(message);
      }
    } catch (error) {
      logger.debug({ err: error, peer: this.#to.id }, "a coordinator cannot be reached");
    } finally {
      this.#cancelReport?.();
      this.#cancelWatch?.();
      this.#channel?.close();
      this.#channel = undefined;
    }
    return { kind: "lost", joined: this.#joined, broken: !this.#silent };
  }

  /** Reports now, not at the next turn. */
  report(): void {
    if (!this.#joined || this.#channel === undefined) return;
    this.#send(this.#owner.takeProgress());
    this.#watch();
    this.#reportLater();
  }

  handBack(message: HandBack): void {
    this.#send(message);
  }

  leave(complete: boolean): void {
    // The last pieces first: only who is known to have all is a source afterwards.
    if (complete && this.#joined) this.#send(this.#owner.takeProgress());
    this.#send({ kind: "leave", complete });
    this.#channel?.close();
  }

  async #open(signal: AbortSignal): Promise<Channel> {
    const { self, wire, coordinator, clock } = this.#deps;
    if (this.#to.id === self.contact.id) return coordinator.connect();
    using dial = linkSignal([signal]);
    const cancel = clock.after(TIMES.dial, () => dial.abort());
    try {
      return await wire.open(this.#to, SWARM_PROTOCOL, dial.signal);
    } finally {
      cancel();
    }
  }

  #onTold(told: Told): void {
    const first = !this.#joined;
    if (first) this.#joinedAt = this.#deps.clock.now();
    this.#joined = true;
    this.#cancelWatch?.();
    this.#cancelWatch = undefined;
    this.#owner.told(told, first);
    const mayHoldMore = this.#owner.holding && !this.#reportsSoon;
    if (first || mayHoldMore) this.#reportLater();
  }

  #reportLater(): void {
    const { clock } = this.#deps;
    const idle =
      clock.now() - this.#joinedAt < TIMES.reportSeldomAfter ? TIMES.reportIdle : TIMES.reportSeldom;
    this.#reportsSoon = this.#owner.holding;
    this.#cancelReport?.();
    this.#cancelReport = clock.after(this.#reportsSoon ? TIMES.reportHolding : idle, () => this.report());
  }

  /** Whoever does not answer is given up. */
  #watch(): void {
    const { clock, logger } = this.#deps;
    const giveUp = (): void => {
      logger.debug({ peer: this.#to.id }, "a coordinator does not answer");
      this.#silent = true;
      this.#channel?.close();
    };
    // A busy event loop runs late timers before it looks at sockets: a little more time, lest the other side is blamed.
    this.#cancelWatch ??= clock.after(TIMES.answer - GRACE_MS, () => {
      this.#cancelWatch = clock.after(GRACE_MS, giveUp);
    });
  }

  #send(message: SwarmMessage): void {
    if (this.#channel === undefined) return;
    this.#deps.metrics.messages.inc({ direction: "out", kind: message.kind });
    this.#channel.send(message);
  }
}
