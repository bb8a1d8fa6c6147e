import { createServer, request, type IncomingMessage, type ServerResponse } from "node:http";
import { pipeline } from "node:stream/promises";
import { RigError } from "./errors.ts";

export interface RecordedRequest {
  readonly method: string;
  /** Path and query. */
  readonly url: string;
  readonly headers: Readonly<NodeJS.Dict<string | string[]>>;
  /** 0 until there is an answer. */
  readonly status: number;
  /** Body bytes that were sent so far. */
  readonly bytes: number;
  /** performance.now() at its arrival. */
  readonly at: number;
}

export interface RecorderOptions {
  /** Base URL to pass requests on to. */
  readonly target: string;
  /** Address to listen on; default 127.0.0.1. */
  readonly address?: string;
  readonly port?: number;
  /** Added to every request as the `ns` parameter, as containerd does it. */
  readonly ns?: string;
}

/** A plain HTTP forwarder in front of a registry that writes down who asked for what. */
export interface Recorder extends AsyncDisposable {
  readonly url: string;
  /** In the order of their arrival; live. */
  readonly requests: readonly RecordedRequest[];
  /** Body bytes of all answers. */
  readonly bytes: number;
  clear(): void;
  close(): Promise<void>;
}

export async function startRecorder(options: RecorderOptions): Promise<Recorder> {
  const requests: { -readonly [Key in keyof RecordedRequest]: RecordedRequest[Key] }[] = [];
  const server = createServer((asked, answer) => {
    const record = {
      method: asked.method ?? "",
      url: asked.url ?? "",
      headers: asked.headers,
      status: 0,
      bytes: 0,
      at: performance.now(),
    };
    requests.push(record);
    forward(asked, answer, options, (status, bytes) => {
      record.status = status;
      record.bytes += bytes;
    }).catch(() => answer.destroy());
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject).listen(options.port ?? 0, options.address ?? "127.0.0.1", resolve);
  });
  const bound = server.address();
  if (bound === null || typeof bound === "string")
    throw new RigError("COMMAND_FAILED", "the recorder has no port");
  const close = async (): Promise<void> => {
    const closed = new Promise<void>((resolve) => void server.close(() => resolve()));
    server.closeAllConnections();
    await closed;
  };
  return {
    url: `http://${bound.address}:${bound.port}`,
    requests,
    get bytes() {
      return requests.reduce((sum, one) => sum + one.bytes, 0);
    },
    clear: () => void requests.splice(0),
    close,
    [Symbol.asyncDispose]: close,
  };
}

async function forward(
  asked: IncomingMessage,
  answer: ServerResponse,
  { target, ns }: RecorderOptions,
  record: (status: number, bytes: number) => void,
): Promise<void> {
  const url = new URL(asked.url ?? "/", target);
  if (ns !== undefined) url.searchParams.set("ns", ns);
  const onward = request(url, {
    method: asked.method,
    headers: { ...asked.headers, host: new URL(target).host },
    agent: false,
  });
  answer.once("close", () => onward.destroy());
  const came = await new Promise<IncomingMessage>((resolve, reject) => {
    onward.once("response", resolve).once("error", reject);
    pipeline(asked, onward).catch(reject);
  });
  record(came.statusCode ?? 0, 0);
  came.on("data", (chunk: Buffer) => record(came.statusCode ?? 0, chunk.length));
  const { connection: _, ...headers } = came.headers;
  answer.writeHead(came.statusCode ?? 502, headers);
  await pipeline(came, answer);
}
