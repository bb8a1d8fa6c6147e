import type { Connection, Stream, StreamHandler } from "@libp2p/interface";
import { raceSignal } from "@p2p-mirror/shared";
import { decode, encode } from "it-length-prefixed";
import type { Uint8ArrayList } from "uint8arraylist";
import { drained } from "./drained.ts";
import { bytesOf, HASH_BYTES, keyHashOfBytes, type KeyHash } from "./key.ts";

export const RECORDS_PROTOCOL = "/p2p-mirror/records/1.0.0";

/**
 * What nodes say to each other beside kad-dht's own messages: over a stream, messages, each with one answer, in this order;
 * a byte that says what is meant, and 32 bytes a key.
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
export const MAX_ANSWER_BYTES = 32 * 1024;
/** For the first message, and for each answer; a peer that opens a stream and says nothing is cut off. */
const SERVE_TIMEOUT_MS = 3_000;
/** A stream on which nothing more is asked; who has opened it closes it sooner (`records-channels.ts`). */
const SERVE_IDLE_MS = 60_000;
export const MAX_STREAMS_PER_PEER = 32;
/** A peer whose messages wait for more than so many of the longest is cut off. */
const MESSAGES_AHEAD = 4;

const LENGTH_BYTES = 4;

/** Big-endian, always four bytes. */
const lengthEncoder = (length: number): Uint8Array<ArrayBuffer> => {
  const bytes = new Uint8Array(LENGTH_BYTES);
  new DataView(bytes.buffer).setUint32(0, length);
  return bytes;
};
lengthEncoder.bytes = LENGTH_BYTES;
// RangeError is how `decode` is told that it takes more bytes to know.
const lengthDecoder = (bytes: Uint8ArrayList): number => {
  if (bytes.byteLength < LENGTH_BYTES) throw new RangeError("more to come");
  return bytes.getUint32(0);
};
lengthDecoder.bytes = LENGTH_BYTES;

/** What comes over a stream, until that is closed. Throws at a message longer than `maxBytes`, and at half a one. */
export async function* receiveFrom(stream: Stream, maxBytes: number): AsyncGenerator<Uint8Array> {
  const options = { maxDataLength: maxBytes, maxLengthLength: LENGTH_BYTES, lengthDecoder };
  for await (const bytes of decode(chunksOf(stream, MESSAGES_AHEAD * maxBytes), options))
    yield bytes.subarray();
}

/** What a stream receives while nobody takes it is kept in memory by libp2p, without a limit: here it has one. */
async function* chunksOf(stream: Stream, mostAhead: number): AsyncGenerator<Uint8Array | Uint8ArrayList> {
  const chunks = stream[Symbol.asyncIterator]();
  // Listens from here on; this node's own listener comes after it, or what has come already would be given to that alone.
  const first = chunks.next();
  let ahead = 0;
  const onMessage = ({ data }: { readonly data: Uint8Array | Uint8ArrayList }): void => {
    ahead += data.byteLength;
    if (ahead > mostAhead) stream.abort(new RecordsProtocolError("too much at once"));
  };
  stream.addEventListener("message", onMessage);
  try {
    for (let next = await first; next.done !== true; next = await chunks.next()) {
      ahead -= next.value.byteLength;
      yield next.value;
    }
  } finally {
    stream.removeEventListener("message", onMessage);
    await chunks.return?.();
  }
}

/** Resolves when there is room for more. */
export async function sendOver(stream: Stream, message: Uint8Array, signal: AbortSignal): Promise<void> {
  const framed = encode.single(message, { lengthEncoder, maxDataLength: Infinity });
  if (!stream.send(framed)) await drained(stream, signal);
}

export class RecordsProtocolError extends Error {
  override readonly name = "RecordsProtocolError";
}

export const asError = (error: unknown): Error =>
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
    const sender = connection.remotePeer.toString();
    const late = new AbortController();
    let timer: NodeJS.Timeout | undefined;
    /** What is next must be there in so long. */
    const within = (ms: number): void => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        const error = new DOMException(`nothing for ${ms} ms`, "TimeoutError");
        late.abort(error);
        stream.abort(error);
      }, ms);
    };
    within(SERVE_TIMEOUT_MS);
    /** Of what came last: it was a message, and its answer is not sent yet. */
    let isAsked = false;
    let hasServed = false;
    try {
      for await (const bytes of receiveFrom(stream, MAX_MESSAGE_BYTES)) {
        within(SERVE_TIMEOUT_MS);
        const message = decodeMessage(bytes);
        isAsked = true;
        const answer = await raceSignal(deps.answer(message, connection), late.signal);
        await sendOver(stream, answer, late.signal);
        isAsked = false;
        hasServed = true;
        within(SERVE_IDLE_MS);
      }
      await raceSignal(stream.close(), late.signal);
    } catch (error) {
      stream.abort(asError(error));
      if (isAsked) deps.onUnanswered(error, sender);
      // A connection that breaks, or an asker that stands still, has asked nothing wrong.
      else if (!hasServed || error instanceof RecordsProtocolError) deps.onRefused(error, sender);
    } finally {
      clearTimeout(timer);
    }
  };
}
