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
/** A stream over which nothing was asked for so long is closed; sooner when nothing ever was, since all have given up. */
const IDLE_MS = 10_000;
const UNUSED_MS = 1_000;
/** When the oldest question waits for so long, what comes next is asked over another stream. */
const HANGS_MS = 1_000;
/** A stream that is asked nothing more has so long for what was asked, and to be closed by the peer, too. */
const LAST_MS = 3_000;
/** Streams for one question, where the peer closes them before it is answered. */
const ATTEMPTS = 3;

interface Question {
  readonly askedAt: number;
  readonly answered: (answer: Uint8Array) => void;
  readonly failed: (error: unknown) => void;
}

/** A stream over which one message after the other is asked, each with its answer, in this order. */
class RecordsChannel {
  readonly #stream: Stream;
  readonly #onRetired: () => void;
  readonly #questions: Question[] = [];
  readonly #ended = new AbortController();
  /** Until it is retired, and then until it ends. */
  #timer: NodeJS.Timeout;
  #retired = false;

  /** `onRetired`: nothing more can be asked here. */
  constructor(stream: Stream, onRetired: () => void) {
    this.#stream = stream;
    this.#onRetired = onRetired;
    this.#timer = setTimeout(() => this.retire(), UNUSED_MS).unref();
    void this.#receive();
  }

  get hangs(): boolean {
    const [oldest] = this.#questions;
    return oldest !== undefined && performance.now() - oldest.askedAt > HANGS_MS;
  }

  /** What was not answered before is not any more. */
  get ended(): boolean {
    return this.#ended.signal.aborted;
  }

  get retired(): boolean {
    return this.#retired;
  }

  async ask(message: Message, signal: AbortSignal): Promise<Uint8Array> {
    this.#ended.signal.throwIfAborted();
    const bytes = encodeMessage(message);
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    // Whoever asked may be gone.
    promise.catch(() => undefined);
    this.#questions.push({ askedAt: performance.now(), answered: resolve, failed: reject });
    if (!this.#retired) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.retire(), IDLE_MS).unref();
    }
    sendOver(this.#stream, bytes, this.#ended.signal).catch((error: unknown) => this.end(error));
    return raceSignal(promise, signal);
  }

  /** Nothing more is asked here; what was asked may still be answered. */
  retire(): void {
    if (this.#retired) return;
    this.#retired = true;
    this.#onRetired();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(
      () => this.end(new RecordsProtocolError("the peer does not answer")),
      LAST_MS,
    ).unref();
    this.#closeWhenAnswered();
  }

  end(reason: unknown): void {
    if (this.ended) return;
    this.#ended.abort(reason);
    this.retire();
    clearTimeout(this.#timer);
    this.#stream.abort(asError(reason));
    for (const { failed } of this.#questions.splice(0)) failed(reason);
  }

  async #receive(): Promise<void> {
    try {
      for await (const answer of receiveFrom(this.#stream, MAX_ANSWER_BYTES)) {
        const question = this.#questions.shift();
        if (question === undefined) throw new RecordsProtocolError("an answer to nothing");
        question.answered(answer);
        if (this.#retired) this.#closeWhenAnswered();
      }
      throw new RecordsProtocolError("the peer has closed the stream");
    } catch (error) {
      this.end(error);
    }
  }

  /** The peer closes its end when it has read ours; if not, `LAST_MS` ends it. */
  #closeWhenAnswered(): void {
    if (this.#questions.length > 0 || this.ended) return;
    this.#stream.close().catch((error: unknown) => this.end(error));
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
    for (let attempt = 1; ; attempt += 1) {
      const channel = await raceSignal(this.#usable(peer), signal);
      try {
        return await channel.ask(message, signal);
      } catch (error) {
        // The stream was of a time before, or the peer closes each after one answer: nothing is wrong with the question.
        if (signal.aborted || !channel.ended || attempt === ATTEMPTS) throw error;
      }
    }
  }

  close(): void {
    const reason = new RecordsProtocolError("the router closes");
    this.#closing.abort(reason);
    for (const opening of this.#channels.values())
      void opening.then((channel) => channel.end(reason)).catch(() => undefined);
  }

  async #usable(peer: PeerId): Promise<RecordsChannel> {
    const channel = await this.#channels.get(peer.toString());
    if (channel?.hangs === true) channel.retire();
    return channel === undefined || channel.retired ? this.#open(peer) : channel;
  }

  /** One for all who ask in the same moment. */
  #open(peer: PeerId): Promise<RecordsChannel> {
    const id = peer.toString();
    const known = this.#channels.get(id);
    if (known !== undefined) return known;
    const forget = (): void => {
      if (this.#channels.get(id) === opening) this.#channels.delete(id);
    };
    const opening = this.#dial(peer, forget);
    this.#channels.set(id, opening);
    opening.catch(forget);
    return opening;
  }

  async #dial(peer: PeerId, onRetired: () => void): Promise<RecordsChannel> {
    using deadline = linkSignal([this.#closing.signal], OPEN_TIMEOUT_MS);
    const stream = await this.#opener.dialProtocol(peer, RECORDS_PROTOCOL, { signal: deadline.signal });
    return new RecordsChannel(stream, onRetired);
  }
}
