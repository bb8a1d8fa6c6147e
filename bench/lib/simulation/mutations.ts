import { createHash } from "node:crypto";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import { LeaseTable } from "../../../packages/p2p-mirror/src/swarm/lease-table.ts";
import type { KnownHashes, Swarm, SwarmMember } from "../../../packages/p2p-mirror/src/swarm/swarm.ts";
import { BatchWriter } from "../../../packages/p2p-mirror/src/transfer/batch-writer.ts";
import { SelfHelp } from "../../../packages/p2p-mirror/src/transfer/self-help.ts";
import { SwarmFetches } from "../../../packages/p2p-mirror/src/transfer/swarm-fetches.ts";
import { NO_CHANGES, type Changes, type FlightPorts } from "./changes.ts";

/** `target` with some of its methods replaced; getters see the original. */
function withMethods<T extends object>(target: T, methods: Partial<T>): T {
  return new Proxy(target, {
    get: (_, key): unknown => {
      const value: unknown = Reflect.get(key in methods ? methods : target, key, target);
      return typeof value === "function" && !(key in methods) ? value.bind(target) : value;
    },
  });
}

/** Nobody takes over when the coordinator is gone: routing tables name the closest node only. */
export const forgetsTheStandIn: Changes = {
  ...NO_CHANGES,
  closest: (closest) => (digest) => closest(digest, 1),
};

/** Of what a neighbour has, always the first piece that is missing, as all others do. */
export const ordersStrictly: Changes = {
  ...NO_CHANGES,
  flight: ({ swarm, ask }) => ({
    ask,
    swarm: withMethods<Swarm>(swarm, {
      join: (about, signal): SwarmMember => {
        const member = swarm.join(about, signal);
        const rarity = (piece: number): number => (member.rarity(piece) === 0 ? 0 : 1 + piece);
        return withMethods<SwarmMember>(member, { rarity });
      },
    }),
  }),
};

/** Whatever comes from a peer is what was expected. */
export const skipsTheHashCheck: Changes = { ...NO_CHANGES, flight: withoutCheck };

function withoutCheck({ swarm, ask }: FlightPorts): FlightPorts {
  const came = new Map<number, Buffer>();
  return {
    ask: async (peer, digest, request, options) => {
      const { body, hash } = await ask(peer, digest, request, options);
      const bytes = await buffer(body);
      came.set(request.piece, createHash("sha256").update(bytes).digest());
      return { body: Readable.from([bytes], { objectMode: false }), hash };
    },
    swarm: withMethods<Swarm>(swarm, {
      hashes: (about): KnownHashes => {
        const hashes = swarm.hashes(about);
        return withMethods<KnownHashes>(hashes, {
          of: (piece) => {
            const hash = hashes.of(piece);
            return hash === undefined ? undefined : { ...hash, sha256: came.get(piece) ?? hash.sha256 };
          },
        });
      },
    }),
  };
}

/** While `run` runs, coordinators do not take back what a member held that leaves. */
export const keepingLeasesOfWhoLeft = <T>(run: () => Promise<T>): Promise<T> =>
  changing(LeaseTable.prototype, "leave", { value: () => undefined }, run);

/** While `run` runs, flights believe that others are about to bring something, whatever they hear: none gives up. */
export const waitingForEver = <T>(run: () => Promise<T>): Promise<T> =>
  changing(SelfHelp.prototype, "waits", { get: () => true }, run);

/** While `run` runs, who has nobody to ask at the moment gives up, whatever others are about to bring. */
export const withoutHope = <T>(run: () => Promise<T>): Promise<T> =>
  changing(SwarmFetches.prototype, "hope", { get: () => false }, run);

/** While `run` runs, what comes is not held up by a disk that does not keep up. */
export function withoutBackpressure<T>(run: () => Promise<T>): Promise<T> {
  const add: unknown = Reflect.get(BatchWriter.prototype, "add");
  if (typeof add !== "function") throw new TypeError("a batch writer has no add() any more");
  const value = function (this: BatchWriter, chunk: Buffer): undefined {
    const room: unknown = Reflect.apply(add, this, [chunk]);
    if (room instanceof Promise) room.catch(() => undefined);
  };
  return changing(BatchWriter.prototype, "add", { value }, run);
}

async function changing<P extends object, T>(
  prototype: P,
  key: keyof P & string,
  change: PropertyDescriptor,
  run: () => Promise<T>,
): Promise<T> {
  const original = Object.getOwnPropertyDescriptor(prototype, key);
  if (original === undefined) throw new TypeError(`there is no ${key} any more`);
  Object.defineProperty(prototype, key, { ...original, ...change });
  try {
    return await run();
  } finally {
    Object.defineProperty(prototype, key, original);
  }
}
