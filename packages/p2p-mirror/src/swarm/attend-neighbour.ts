import type { SwarmMessage } from "./messages.ts";
import type { Channel } from "./wire.ts";

/** Hands the messages of a channel on until it ends, and says so. */
export async function attendNeighbour(
  channel: Channel,
  neighbours: {
    /** False: the channel is of no use any more. */
    receive(channel: Channel, message: SwarmMessage): boolean;
    closed(channel: Channel): void;
  },
): Promise<void> {
  try {
    for await (const message of channel.messages) if (!neighbours.receive(channel, message)) break;
  } finally {
    channel.close();
    neighbours.closed(channel);
  }
}
