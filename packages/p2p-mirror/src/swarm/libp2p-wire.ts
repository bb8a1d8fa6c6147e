import type { Stream, StreamHandler } from "@libp2p/interface";
import type { Clock, Logger } from "@p2p-mirror/shared";
import { encode, decode } from "it-length-prefixed";
import { pipe } from "it-pipe";
import { pushable } from "it-pushable";
import type { SwarmCodec } from "./codec.ts";
import { MAX_MESSAGE_BYTES, SwarmProtocolError, type SwarmMessage } from "./messages.ts";
import type { Channel, Contact, Wire } from "./wire.ts";

/** Digests that two nodes have to do with each other at the same time, in each direction. */
const MAX_STREAMS_PER_PEER = 512;
/** A peer that has not taken so much is cut off. The hashes of a whole blob of 64 GiB are 1.4 MB, at once. */
const MAX_OUTBOX_BYTES = 4 * 1024 * 1024;
/** A varint of a length up to 64 KiB. */
const MAX_LENGTH_BYTES = 3;
/** Messages a second that a peer may send for long, and at once. The busiest neighbour sends twenty. */
const MESSAGES_PER_SECOND = 500;
const BURST_MESSAGES = 2_000;
/** What was sent before a close gets so long to arrive. */
const LINGER_MS = 1_000;

/** The streams of the node that the wire goes over. */
export interface Streams {
  openStream(to: Contact, protocol: string, signal: AbortSignal): Promise<Stream>;
  handleStreams(
    protocol: string,
    handler: StreamHandler,
    maxStreamsPerPeer: number,
  ): Promise<() => Promise<void>>;
}

export interface Libp2pWireDeps {
  readonly streams: Streams;
  readonly codec: SwarmCodec;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Length-prefixed protobuf over libp2p streams, one stream a channel. */
export function createLibp2pWire(deps: Libp2pWireDeps): Wire {
  return {
    open: async (to, protocol, signal) =>
      channelOver(await deps.streams.openStream(to, protocol, signal), to.id, deps),
    handle: (protocol, onChannel) =>
      deps.streams.handleStreams(
        protocol,
        (stream, connection) => {
          onChannel(channelOver(stream, connection.remotePeer.toString(), deps));
        },
        MAX_STREAMS_PER_PEER,
      ),
  };
}

/** What a peer may send. */
class Allowance {
  readonly #clock: Clock;
  #messages = BURST_MESSAGES;
  #at: number;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#at = clock.now();
  }

  /** @throws SwarmProtocolError when there are too many. */
  take(): void {
    const now = this.#clock.now();
    const earned = ((now - this.#at) / 1_000) * MESSAGES_PER_SECOND;
    this.#messages = Math.min(BURST_MESSAGES, this.#messages + earned) - 1;
    this.#at = now;
    if (this.#messages < 0) throw new SwarmProtocolError("a peer that sends too many messages");
  }
}

const asError = (error: unknown): Error => (error instanceof Error ? error : new Error(String(error)));

function channelOver(stream: Stream, peer: string, { codec, clock, logger }: Libp2pWireDeps): Channel {
  const inbox = pushable<SwarmMessage>({ objectMode: true });
  const outbox = pushable();
  /** Nothing more is sent. */
  let closed = false;
  const close = (): void => {
    closed = true;
    inbox.end();
    outbox.end();
  };
  const fail = (error: unknown): void => {
    logger.debug({ err: error, peer }, "a stream of the swarm has failed");
    close();
    stream.abort(asError(error));
  };
  const allowance = new Allowance(clock);
  /** The other side sends nothing more. */
  let ended = false;
  const receive = async (): Promise<void> => {
    await pipe(
      stream,
      (source) => decode(source, { maxDataLength: MAX_MESSAGE_BYTES, maxLengthLength: MAX_LENGTH_BYTES }),
      async (messages) => {
        for await (const bytes of messages) {
          allowance.take();
          inbox.push(codec.decode(bytes.subarray()));
        }
      },
    );
    ended = true;
    close();
  };
  const transmit = async (): Promise<void> => {
    await pipe(outbox, async (messages) => {
      for await (const bytes of messages) {
        if (!stream.send(encode.single(bytes))) await stream.onDrain();
      }
    });
    if (stream.status === "open") await stream.close();
    if (!ended) {
      clock.after(LINGER_MS, () => {
        if (stream.status !== "closed")
          stream.abort(new SwarmProtocolError("it was not closed at both ends"));
      });
    }
  };
  receive().catch(fail);
  transmit().catch(fail);
  return {
    peer,
    messages: inbox,
    close,
    send: (message) => {
      if (closed) return;
      if (outbox.readableLength + stream.writeBufferLength > MAX_OUTBOX_BYTES) {
        fail(new SwarmProtocolError("the peer does not take what it is sent"));
        return;
      }
      outbox.push(codec.encode(message));
    },
  };
}
