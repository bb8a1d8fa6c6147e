import { pushable } from "it-pushable";
import type { SwarmMessage } from "./messages.ts";
import type { Channel } from "./wire.ts";

/** How a message, or the end, gets to the other side; default: at once. */
export type Deliver = (arrive: () => void) => void;

const atOnce: Deliver = (arrive) => arrive();

/**
 * Two ends of a channel inside this process: a node that is its own coordinator goes the same way as all others, without
 * a network.
 */
export function channelPair(
  one: string,
  other: string,
  deliver: { readonly toOne?: Deliver; readonly toOther?: Deliver } = {},
): [Channel, Channel] {
  const atOne = pushable<SwarmMessage>({ objectMode: true });
  const atOther = pushable<SwarmMessage>({ objectMode: true });
  const { toOne = atOnce, toOther = atOnce } = deliver;
  const end = (peer: string, own: typeof atOne, far: typeof atOne, carry: Deliver): Channel => {
    let closed = false;
    return {
      peer,
      messages: own,
      send: (message) => {
        if (!closed) carry(() => far.push(message));
      },
      close: () => {
        if (closed) return;
        closed = true;
        own.end();
        carry(() => far.end());
      },
    };
  };
  return [end(other, atOne, atOther, toOther), end(one, atOther, atOne, toOne)];
}
