import type { PeerId, Stream } from "@libp2p/interface";
import { linkSignal, raceSignal } from "@p2p-mirror/shared";
import {
  asError,
  encodeMessage,
  MAX_ANSWER_BYTES,
  receiveFrom,
  RECORDS_PROTOCOL,
  RecordsProtocolError,
  sendOver,
  type Message,
} from "./records-protocol.ts";

export interface StreamOpener {
  dialProtocol(peer: PeerId, protocol: string, options: { signal: AbortSignal }): Promise<Stream>;
}

/** Opening a stream, where there is a connection; who asks may have less patience. */
const OPEN_TIMEOUT_MS = 2_000;
/** A stream over which nothing was asked for so long is closed. */
const IDLE_MS = 10_000;
/** The peer closes it then, too. */
const CLOSE_TIMEOUT_MS = 3_000;
/** When the oldest question waits for so long the stream is given up: what comes next is asked over another one. */
const HANGS_MS = 1_000;

interface Question {
  readonly askedAt: number;
  readonly answered: (answer: Uint8Array) => void;
  readonly failed: (error: unknown) => void;
}

/** A stream over which one message after the other is asked, each with its answer, in this order. */
class RecordsChannel {
  readonly #stream: Stream;
  readonly #questions: Question[] = [];
  readonly #idle: NodeJS.Timeout;
  readonly #ended = new AbortController();
  /** The peer says nothing more. */
  readonly #over: Promise<void>;

  /** `onEnd`: nothing more can be asked here. */
  constructor(stream: Stream, onEnd: () => void) {
    this.#stream = stream;
    this.#idle = setTimeout(() => this.#rest(), IDLE_MS).unref();
    this.#ended.signal.addEventListener("abort", onEnd, { once: true });
    this.#over = this.#receive();
  }

  get hangs(): boolean {
    const [oldest] = this.#questions;
    return oldest !== undefined && performance.now() - oldest.askedAt > HANGS_MS;
  }

  get ended(): boolean {
    return this.#ended.signal.aborted;
  }

  async ask(message: Message, signal: AbortSignal): Promise<Uint8Array> {
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    // Whoever asked may be gone.
    promise.catch(() => undefined);
    this.#idle.refresh();
    this.#questions.push({ askedAt: performance.now(), answered: resolve, failed: reject });
    sendOver(this.#stream, encodeMessage(message), this.#ended.signal).catch((error: unknown) =>
      this.end(error),
    );
    return raceSignal(promise, signal);
  }

  end(reason: unknown): void {
    if (this.ended) return;
    clearTimeout(this.#idle);
    this.#ended.abort(reason);
    this.#stream.abort(asError(reason));
    for (const { failed } of this.#questions.splice(0)) failed(reason);
  }

  async #receive(): Promise<void> {
    try {
      for await (const answer of receiveFrom(this.#stream, MAX_ANSWER_BYTES)) {
        const question = this.#questions.shift();
        if (question === undefined) throw new RecordsProtocolError("an answer to nothing");
        question.answered(answer);
      }
      throw new RecordsProtocolError("the peer has closed the stream");
    } catch (error) {
      this.end(error);
    }
  }

  #rest(): void {
    if (this.#questions.length > 0) {
      this.#idle.refresh();
      return;
    }
    this.#ended.abort(new RecordsProtocolError("nothing more was asked"));
    this.#close().catch((error: unknown) => this.#stream.abort(asError(error)));
  }

  async #close(): Promise<void> {
    using deadline = linkSignal([], CLOSE_TIMEOUT_MS);
    await this.#stream.close({ signal: deadline.signal });
    await raceSignal(this.#over, deadline.signal);
  }
}

/** The asking side: one stream to each peer, kept while there are questions. Opening one costs more than ten of them. */
export class RecordsChannels {
  readonly #opener: StreamOpener;
  readonly #channels = new Map<string, Promise<RecordsChannel>>();
  readonly #closing = new AbortController();

  constructor(opener: StreamOpener) {
    this.#opener = opener;
  }

  /** Rejects when the peer cannot be reached, does not answer before the signal, or answers too much. */
  async ask(peer: PeerId, message: Message, signal: AbortSignal): Promise<Uint8Array> {
    const before = await this.#usable(peer, signal);
    if (before !== undefined) {
      try {
        return await before.ask(message, signal);
      } catch (error) {
        // The stream was of a time before: the peer may have started anew since.
        if (signal.aborted || !before.ended) throw error;
      }
    }
    const channel = await raceSignal(this.#open(peer), signal);
    return channel.ask(message, signal);
  }

  close(): void {
    this.#closing.abort(new RecordsProtocolError("the router closes"));
    for (const opening of this.#channels.values()) {
      void opening.then((channel) => channel.end(this.#closing.signal.reason)).catch(() => undefined);
    }
  }

  async #usable(peer: PeerId, signal: AbortSignal): Promise<RecordsChannel | undefined> {
    const opening = this.#channels.get(peer.toString());
    if (opening === undefined) return undefined;
    const channel = await raceSignal(opening, signal);
    if (channel.hangs) channel.end(new RecordsProtocolError("the peer does not answer"));
    return channel.ended ? undefined : channel;
  }

  /** One for all who ask in the same moment. */
  #open(peer: PeerId): Promise<RecordsChannel> {
    const id = peer.toString();
    const known = this.#channels.get(id);
    if (known !== undefined) return known;
    const opening = this.#dial(peer, () => {
      if (this.#channels.get(id) === opening) this.#channels.delete(id);
    });
    this.#channels.set(id, opening);
    opening.catch(() => {
      if (this.#channels.get(id) === opening) this.#channels.delete(id);
    });
    return opening;
  }

  async #dial(peer: PeerId, onEnd: () => void): Promise<RecordsChannel> {
    using deadline = linkSignal([this.#closing.signal], OPEN_TIMEOUT_MS);
    const stream = await this.#opener.dialProtocol(peer, RECORDS_PROTOCOL, { signal: deadline.signal });
    return new RecordsChannel(stream, onEnd);
  }
}
