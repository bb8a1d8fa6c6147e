import { setImmediate as nextTurn } from "node:timers/promises";
import { linkSignal, type Logger } from "@p2p-mirror/shared";
import { MAX_KEYS_PER_MESSAGE, type Message } from "./records-protocol.ts";
import { positionOfKey, type KeyHash } from "./key.ts";
import type { Member, Members } from "./members.ts";
import type { RoutingMetrics } from "./metrics.ts";

export interface AnnouncerOptions {
  /** How many members keep a record. Lookups ask the 20 closest, the closest first, so 8 survive 7 deaths or 12 joins. */
  readonly replication: number;
  /** All records are said again within 40 % of this: one round may fail, and none expires. */
  readonly validityMs: number;
}

export interface AnnouncerDeps {
  readonly members: Members;
  send(member: Member, message: Message, signal: AbortSignal): Promise<unknown>;
  /** A member did not take a message: resolves when it is known whether it is still one. */
  check(member: Member): Promise<void>;
  readonly logger: Logger;
  readonly metrics: RoutingMetrics;
}

interface OwnRecord {
  readonly position: number;
  /** Members that confirmed the record. */
  readonly told: Set<string>;
}

const SEND_TIMEOUT_MS = 2_000;
const LEAVE_TIMEOUT_MS = 2_000;
const CONCURRENT_SENDS = 8;
const ROUNDS = 3;
/** Saying everything again is cut into this many parts, so that the load is even. */
const PARTS = 8;
/** After a member came or went, so that thirty nodes starting together cause one round, not thirty. */
const SETTLE_MS = 200;
/** Keys placed before other work gets its turn: under a millisecond at a thousand members. */
const KEYS_PER_TURN = 200;

/** Says what this node has to the members closest to each key, and keeps it said as members come and go. */
export class Announcer {
  readonly #options: AnnouncerOptions;
  readonly #deps: AnnouncerDeps;
  readonly #own = new Map<KeyHash, OwnRecord>();
  readonly #pending = new Set<KeyHash>();
  readonly #closing = new AbortController();
  #queue: Promise<void> = Promise.resolve();
  #again: NodeJS.Timeout | undefined;
  #settle: NodeJS.Timeout | undefined;
  #part = 0;

  constructor(options: AnnouncerOptions, deps: AnnouncerDeps) {
    this.#options = options;
    this.#deps = deps;
  }

  get size(): number {
    return this.#own.size;
  }

  start(): void {
    this.#again = setInterval(() => this.#sayPartAgain(), (this.#options.validityMs * 0.4) / PARTS);
  }

  /** Resolves when the members that should have the records confirmed them, or could not be reached. */
  async announce(keys: readonly KeyHash[], signal?: AbortSignal): Promise<void> {
    for (const key of keys) {
      if (!this.#own.has(key)) this.#own.set(key, { position: positionOfKey(key), told: new Set() });
      this.#pending.add(key);
    }
    await this.#enqueue(() => this.#place(signal));
  }

  async withdraw(keys: readonly KeyHash[], signal?: AbortSignal): Promise<void> {
    await this.#enqueue(async () => {
      const perMember = new Map<Member, KeyHash[]>();
      for (const key of keys) {
        const record = this.#own.get(key);
        this.#own.delete(key);
        this.#pending.delete(key);
        for (const id of record?.told ?? []) this.#addTo(perMember, this.#deps.members.get(id), key);
      }
      await this.#sendAll("withdraw", perMember, signal);
    });
  }

  /** A member came (back): what it had of ours may be gone. */
  memberCame(id: string): void {
    for (const record of this.#own.values()) record.told.delete(id);
    this.membersChanged();
  }

  /** The closest members of some keys are others now. */
  membersChanged(): void {
    if (this.#settle !== undefined || this.#closing.signal.aborted || this.#own.size === 0) return;
    this.#settle = setTimeout(() => {
      this.#settle = undefined;
      for (const key of this.#own.keys()) this.#pending.add(key);
      this.#inBackground();
    }, SETTLE_MS);
  }

  /** Takes everything back, with one message a member, within two seconds. */
  async close(): Promise<void> {
    this.#closing.abort();
    clearInterval(this.#again);
    clearTimeout(this.#settle);
    await this.#queue;
    const told = new Set<string>();
    for (const record of this.#own.values()) for (const id of record.told) told.add(id);
    this.#own.clear();
    const deadline = linkSignal([], LEAVE_TIMEOUT_MS);
    try {
      await Promise.allSettled(
        [...told].map(async (id) => {
          const member = this.#deps.members.get(id);
          if (member?.connected === true)
            await this.#deps.send(member, { operation: "leave", keys: [] }, deadline.signal);
        }),
      );
    } finally {
      deadline.release();
    }
  }

  #sayPartAgain(): void {
    this.#part = (this.#part + 1) % PARTS;
    for (const [key, record] of this.#own) {
      if (key.charCodeAt(0) % PARTS !== this.#part) continue;
      record.told.clear();
      this.#pending.add(key);
    }
    this.#inBackground();
  }

  #inBackground(): void {
    this.#enqueue(() => this.#place()).catch((error: unknown) => {
      this.#deps.logger.warn({ err: error }, "records could not be said again");
    });
  }

  /** One thing after another: a withdrawal must not overtake the announcement it takes back. */
  #enqueue(work: () => Promise<void>): Promise<void> {
    const run = this.#queue.then(work);
    this.#queue = run.catch(() => undefined);
    return run;
  }

  async #place(signal?: AbortSignal): Promise<void> {
    for (let round = 0; round < ROUNDS && this.#pending.size > 0; round += 1) {
      if (this.#closing.signal.aborted || signal?.aborted === true) return;
      const keys = [...this.#pending];
      this.#pending.clear();
      const perMember = new Map<Member, KeyHash[]>();
      for (const [index, key] of keys.entries()) {
        if (index % KEYS_PER_TURN === KEYS_PER_TURN - 1) await nextTurn();
        const record = this.#own.get(key);
        if (record === undefined) continue;
        for (const member of this.#deps.members.closest(record.position, this.#options.replication)) {
          if (!record.told.has(member.id)) this.#addTo(perMember, member, key);
        }
      }
      await this.#sendAll("announce", perMember, signal);
    }
  }

  #addTo(perMember: Map<Member, KeyHash[]>, member: Member | undefined, key: KeyHash): void {
    if (member === undefined) return;
    const keys = perMember.get(member);
    if (keys === undefined) perMember.set(member, [key]);
    else keys.push(key);
  }

  async #sendAll(
    operation: "announce" | "withdraw",
    perMember: ReadonlyMap<Member, readonly KeyHash[]>,
    signal?: AbortSignal,
  ): Promise<void> {
    const work = [...perMember];
    const worker = async (): Promise<void> => {
      for (let next = work.pop(); next !== undefined; next = work.pop()) {
        if (signal?.aborted === true) return;
        await this.#sendTo(operation, ...next, signal);
      }
    };
    await Promise.all(Array.from({ length: Math.min(CONCURRENT_SENDS, work.length) }, worker));
  }

  async #sendTo(
    operation: "announce" | "withdraw",
    member: Member,
    keys: readonly KeyHash[],
    outer?: AbortSignal,
  ): Promise<void> {
    for (let at = 0; at < keys.length; at += MAX_KEYS_PER_MESSAGE) {
      const batch = keys.slice(at, at + MAX_KEYS_PER_MESSAGE);
      const deadline = linkSignal([this.#closing.signal, outer], SEND_TIMEOUT_MS);
      try {
        await this.#deps.send(member, { operation, keys: batch }, deadline.signal);
      } catch (error) {
        if (this.#closing.signal.aborted || outer?.aborted === true) return;
        this.#deps.metrics.announceFailures.inc();
        this.#deps.logger.debug({ err: error, peer: member.id, operation }, "a member took no records");
        if (operation === "announce") {
          await this.#deps.check(member);
          for (const key of keys.slice(at)) if (this.#own.has(key)) this.#pending.add(key);
        }
        return;
      } finally {
        deadline.release();
      }
      if (operation === "announce") {
        for (const key of batch) this.#own.get(key)?.told.add(member.id);
        this.#deps.metrics.recordsSent.inc(batch.length);
      } else this.#deps.metrics.withdrawals.inc(batch.length);
    }
  }
}
