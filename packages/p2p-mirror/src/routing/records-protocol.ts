import { lpStream, type LengthPrefixedStream } from "@libp2p/utils";
import type { Connection, PeerId, Stream, StreamHandler } from "@libp2p/interface";
import { linkSignal } from "@p2p-mirror/shared";
import type { Uint8ArrayList } from "uint8arraylist";
import { bytesOf, HASH_BYTES, keyHashOfBytes, type KeyHash } from "./key.ts";

export const RECORDS_PROTOCOL = "/p2p-mirror/records/1.0.0";

/**
 * What nodes say to each other beside kad-dht's own messages: one message and one answer a stream; a byte that says what
 * is meant, and 32 bytes a key.
 *
 * - `announce`, `withdraw`, `leave`: provider records of the sender, for many keys at once. It does what kad-dht's
 *   ADD_PROVIDER does, without writing the sender's addresses to the peer store for every key, and with an answer (how
 *   many were done, four bytes); and what Kademlia has no message for: taking records back. Whose records they are comes
 *   from the connection: a peer speaks for itself only.
 * - `find`: who has this key by your table? The answer is a list of peers and their data planes.
 * - `meet`: whom are you connected to? A list of peers and their libp2p addresses.
 */
const OPERATIONS = { announce: 1, withdraw: 2, leave: 3, find: 4, meet: 5 } as const;
export type Operation = keyof typeof OPERATIONS;

export interface Message {
  readonly operation: Operation;
  readonly keys: readonly KeyHash[];
}

export const MAX_KEYS_PER_MESSAGE = 1024;
const MAX_MESSAGE_BYTES = 1 + MAX_KEYS_PER_MESSAGE * HASH_BYTES;
const MAX_ANSWER_BYTES = 32 * 1024;
/** For the whole exchange on the serving side; a peer that opens a stream and says nothing is cut off. */
const SERVE_TIMEOUT_MS = 3_000;
export const MAX_STREAMS_PER_PEER = 32;

const LENGTH_BYTES = 4;

/** Big-endian, always four bytes: a varint that never ends would be read until the deadline. */
const framing = (maxDataLength: number) => ({
  maxDataLength,
  maxLengthLength: LENGTH_BYTES,
  lengthEncoder: (length: number): Uint8Array => {
    const bytes = Buffer.alloc(LENGTH_BYTES);
    bytes.writeUInt32BE(length);
    return bytes;
  },
  // RangeError is how lpStream is told that it takes more bytes to know.
  lengthDecoder: (bytes: Uint8ArrayList): number => {
    if (bytes.byteLength < LENGTH_BYTES) throw new RangeError("more to come");
    return bytes.getUint32(0);
  },
});

/** A stream as a sequence of messages, none longer than `maxBytes`. */
export const framed = (stream: Stream, maxBytes: number): LengthPrefixedStream<Stream> =>
  lpStream(stream, framing(maxBytes));

export class RecordsProtocolError extends Error {
  override readonly name = "RecordsProtocolError";
}

const asError = (error: unknown): Error =>
  error instanceof Error ? error : new RecordsProtocolError(String(error));

const isOperation = (name: string | undefined): name is Operation => name !== undefined && name in OPERATIONS;

export function encodeMessage({ operation, keys }: Message): Uint8Array {
  return Buffer.concat([Buffer.from([OPERATIONS[operation]]), ...keys.map(bytesOf)]);
}

/** @throws RecordsProtocolError when the bytes are no message. */
export function decodeMessage(bytes: Uint8Array): Message {
  const operation = Object.entries(OPERATIONS).find(([, code]) => code === bytes[0])?.[0];
  const length = bytes.byteLength - 1;
  if (length < 0 || length % HASH_BYTES !== 0 || length > MAX_KEYS_PER_MESSAGE * HASH_BYTES) {
    throw new RecordsProtocolError(`a message of ${bytes.byteLength} bytes`);
  }
  if (!isOperation(operation)) throw new RecordsProtocolError(`operation ${bytes[0]}`);
  const keys: KeyHash[] = [];
  for (let at = 1; at < bytes.byteLength; at += HASH_BYTES) {
    keys.push(keyHashOfBytes(bytes.subarray(at, at + HASH_BYTES)));
  }
  return { operation, keys };
}

export interface RecordsHandlerDeps {
  answer(message: Message, connection: Connection): Promise<Uint8Array>;
  /** What came was no message: too long, malformed, or not there in time. */
  onRefused(error: unknown, sender: string): void;
  /** The answer could not be given; most often the asker has it from another already. */
  onUnanswered(error: unknown, sender: string): void;
}

/** The serving side. Whatever is wrong with a message ends its stream, and nothing else. */
export function createRecordsHandler(deps: RecordsHandlerDeps): StreamHandler {
  return async (stream, connection) => {
    const deadline = linkSignal([], SERVE_TIMEOUT_MS);
    const { signal } = deadline;
    const sender = connection.remotePeer.toString();
    let message: Message | undefined;
    try {
      const messages = framed(stream, MAX_MESSAGE_BYTES);
      message = decodeMessage((await messages.read({ signal })).subarray());
      await messages.write(await deps.answer(message, connection), { signal });
      await stream.close({ signal });
    } catch (error) {
      stream.abort(asError(error));
      if (message === undefined) deps.onRefused(error, sender);
      else deps.onUnanswered(error, sender);
    } finally {
      deadline.release();
    }
  };
}

export interface StreamOpener {
  dialProtocol(peer: PeerId, protocol: string, options: { signal: AbortSignal }): Promise<Stream>;
}

/** The asking side. Rejects when the peer cannot be reached, does not answer in time, or answers too much. */
export async function ask(
  opener: StreamOpener,
  peer: PeerId,
  message: Message,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const stream = await opener.dialProtocol(peer, RECORDS_PROTOCOL, { signal });
  try {
    const messages = framed(stream, MAX_ANSWER_BYTES);
    await messages.write(encodeMessage(message), { signal });
    const answer = (await messages.read({ signal })).subarray();
    stream.close({ signal }).catch((error: unknown) => stream.abort(asError(error)));
    return answer;
  } catch (error) {
    stream.abort(asError(error));
    throw error;
  }
}
