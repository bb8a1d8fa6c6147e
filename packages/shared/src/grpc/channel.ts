import { resolve } from "node:path";
import { Client, credentials, Metadata, type ClientReadableStream, type ServiceError } from "@grpc/grpc-js";
import type { MethodDefinition, ServiceDefinition } from "@grpc/proto-loader";
import { ReadAhead } from "./read-ahead.ts";
import { toSourceError } from "./status.ts";

export interface GrpcChannelOptions {
  /** Path of the unix socket. */
  readonly socket: string;
  /** Named in errors, for example `containerd`. */
  readonly source: string;
  /** Sent with each call. */
  readonly headers: Readonly<Record<string, string>>;
  /** Milliseconds a unary call may take in all, default 5,000. */
  readonly timeoutMs?: number | undefined;
  /** Bytes of one incoming message, default 16 MiB (what containerd itself allows its clients). */
  readonly maxMessageBytes?: number | undefined;
}

export interface GrpcCallOptions {
  readonly signal?: AbortSignal | undefined;
  /** Milliseconds; instead of the channel's. */
  readonly timeoutMs?: number | undefined;
}

export interface GrpcStreamOptions extends GrpcCallOptions {
  /** Milliseconds the next message may take once it is asked for; default: for ever (event streams are silent for days). */
  readonly stallMs?: number | undefined;
}

const DEFAULT_TIMEOUT_MS = 5_000;
const DEFAULT_MESSAGE_BYTES = 16 * 1024 * 1024;
/** HTTP/2 window: two of containerd's 1 MiB messages, so that the next is on its way while one is consumed. */
const WINDOW_BYTES = 2 * 1024 * 1024;
/** Messages of a stream that may wait for their reader. */
const READ_AHEAD = 2;

/**
 * One connection to a gRPC server on a unix socket. It does not wait for a server that is not there: calls fail at once
 * with SourceError (`UNREACHABLE`), and reconnecting is up to whoever owns it (grpc-js would back off up to two minutes).
 */
export class GrpcChannel {
  readonly #client: Client;
  readonly #metadata: Metadata;
  readonly #options: GrpcChannelOptions;

  constructor(options: GrpcChannelOptions) {
    this.#options = options;
    this.#metadata = new Metadata();
    for (const [name, value] of Object.entries(options.headers)) this.#metadata.set(name, value);
    this.#client = new Client(`unix://${resolve(options.socket)}`, credentials.createInsecure(), {
      "grpc.use_local_subchannel_pool": 1,
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 1_000,
      "grpc.max_receive_message_length": options.maxMessageBytes ?? DEFAULT_MESSAGE_BYTES,
      "grpc-node.flow_control_window": WINDOW_BYTES,
      "grpc.enable_http_proxy": 0,
      "grpc.service_config_disable_resolution": 1,
    });
  }

  /** Resolves with the answer, or rejects with SourceError; with the signal's reason when that aborted. */
  unary(method: Method, request: object, options: GrpcCallOptions = {}): Promise<object> {
    const { signal } = options;
    return new Promise((resolveCall, rejectCall) => {
      signal?.throwIfAborted();
      const onAbort = (): void => call.cancel();
      const call = this.#client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        this.#metadata,
        { deadline: Date.now() + (options.timeoutMs ?? this.#options.timeoutMs ?? DEFAULT_TIMEOUT_MS) },
        (error: ServiceError | null, value?: object) => {
          signal?.removeEventListener("abort", onAbort);
          if (error === null && value !== undefined) resolveCall(value);
          else if (signal?.aborted === true) rejectCall(abortReason(signal));
          else rejectCall(toSourceError(this.#options.source, error));
        },
      );
      signal?.addEventListener("abort", onAbort, { once: true });
    });
  }

  /**
   * Messages of a server stream, each taken from the connection only when it is asked for. Leaving the loop cancels the
   * call. Rejects like `unary`; a message that does not come within `stallMs` is SourceError (`STALLED`).
   */
  async *stream(
    method: Method,
    request: object,
    options: GrpcStreamOptions = {},
  ): AsyncGenerator<object, void, undefined> {
    const { signal, stallMs } = options;
    signal?.throwIfAborted();
    const readAhead = new ReadAhead(READ_AHEAD);
    const call: ClientReadableStream<object> = this.#client.makeServerStreamRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      this.#metadata,
      {
        interceptors: [readAhead.interceptor],
        ...(options.timeoutMs === undefined ? {} : { deadline: Date.now() + options.timeoutMs }),
      },
    );
    const onAbort = (): void => call.cancel();
    signal?.addEventListener("abort", onAbort, { once: true });
    let stalled = false;
    let timer: NodeJS.Timeout | undefined;
    const arm = (): void => {
      if (stallMs === undefined) return;
      timer = setTimeout(() => {
        stalled = true;
        call.cancel();
      }, stallMs);
    };
    try {
      arm();
      for await (const message of call) {
        clearTimeout(timer);
        readAhead.taken();
        if (isObject(message)) yield message;
        arm();
      }
    } catch (error) {
      if (signal?.aborted === true) throw abortReason(signal);
      throw toSourceError(this.#options.source, error, stalled ? "STALLED" : undefined);
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      // The status of a cancelled call still comes, as an error that nobody waits for.
      call.on("error", () => undefined);
      call.cancel();
    }
  }

  close(): void {
    this.#client.close();
  }
}

export type Method = MethodDefinition<object, object>;

/** @throws Error when the service has no such method: a mistake in this program. */
export function methodOf(service: ServiceDefinition, name: string): Method {
  const method = service[name];
  if (method === undefined) throw new Error(`no method ${name} in the contract`);
  return method;
}

const isObject = (value: unknown): value is object => typeof value === "object" && value !== null;

const abortReason = (signal: AbortSignal): Error => {
  const reason: unknown = signal.reason;
  return reason instanceof Error ? reason : new DOMException("aborted", "AbortError");
};
