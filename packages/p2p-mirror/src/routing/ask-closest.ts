import { linkSignal } from "@p2p-mirror/shared";
import type { Member } from "./members.ts";
import type { Peer } from "./router.ts";

export interface AskClosestDeps {
  ask(member: Member, signal: AbortSignal): Promise<readonly Peer[]>;
  /** A member did not answer in time, or not at all. */
  failed(member: Member): void;
}

/** Kademlia's alpha. */
const PARALLEL = 3;
/** Longer than any healthy answer; a silent node must not hold up a pull. */
const ASK_TIMEOUT_MS = 500;
/**
 * The closest alone is asked first: it nearly always has what the others have, and the answer comes within a millisecond
 * or two. After this, or an answer without peers, Kademlia's three at a time.
 */
const FIRST_ALONE_MS = 5;
/** Of three, one that is slower than this does not keep the next from being asked. */
const IMPATIENT_MS = 50;

type Answer =
  | { readonly member: Member; readonly peers: readonly Peer[] }
  | { readonly member: Member; readonly peers: undefined };

/**
 * Asks members, the closest first, and yields what they say as it comes. Returns how many answered.
 * A caller that stops early stops the questions under way.
 */
export async function* askClosest(
  members: readonly Member[],
  deps: AskClosestDeps,
  outer: AbortSignal,
): AsyncGenerator<Peer, number> {
  const stop = linkSignal([outer]);
  const waiting = new Map<Member, Promise<Answer>>();
  let next = 0;
  let answered = 0;

  const askOne = async (member: Member): Promise<Answer> => {
    const deadline = linkSignal([stop.signal], ASK_TIMEOUT_MS);
    try {
      return { member, peers: await deps.ask(member, deadline.signal) };
    } catch {
      if (!stop.signal.aborted) deps.failed(member);
      return { member, peers: undefined };
    } finally {
      deadline.release();
    }
  };
  const askNext = (): void => {
    const member = members[next];
    next += 1;
    if (member !== undefined) waiting.set(member, askOne(member));
  };

  try {
    askNext();
    let impatience = FIRST_ALONE_MS;
    while (waiting.size > 0 && !outer.aborted) {
      const answer = await firstOf([...waiting.values()], next < members.length ? impatience : undefined);
      if (answer !== undefined) waiting.delete(answer.member);
      if (answer?.peers !== undefined) {
        answered += 1;
        yield* answer.peers;
      }
      // Another for the one that answered or was slow; after the first, three.
      const more = impatience === FIRST_ALONE_MS ? PARALLEL - waiting.size : 1;
      impatience = IMPATIENT_MS;
      for (let i = 0; i < more && next < members.length; i += 1) askNext();
    }
    return answered;
  } finally {
    stop.abort();
    stop.release();
  }
}

async function firstOf<T>(
  promises: readonly Promise<T>[],
  timeoutMs: number | undefined,
): Promise<T | undefined> {
  if (timeoutMs === undefined) return Promise.race(promises);
  let timer: NodeJS.Timeout | undefined;
  const patience = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), timeoutMs);
  });
  try {
    return await Promise.race([...promises, patience]);
  } finally {
    clearTimeout(timer);
  }
}
