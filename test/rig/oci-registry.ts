import { once } from "node:events";
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import { createServer as createHttpsServer, type ServerOptions } from "node:https";
import type { Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { Authenticator, type RegistryAuth } from "./oci-registry/auth.ts";
import { RegistryContent, type PushedContent } from "./oci-registry/content.ts";
import { Faults, type Fault, type RecordedRequest } from "./oci-registry/faults.ts";
import { answer, route, type RouteDeps, type Routed } from "./oci-registry/routes.ts";
import { send, sendError, type Exchange } from "./oci-registry/send.ts";
import { PresignedStorage } from "./oci-registry/storage.ts";
import { Uploads } from "./oci-registry/uploads.ts";

import { resetSocket } from "./reset.ts";

export type { RegistryAuth } from "./oci-registry/auth.ts";
export type { PushedContent } from "./oci-registry/content.ts";
export type { Fault, RecordedRequest, RequestKind } from "./oci-registry/faults.ts";
export { buildImage, type BuiltImage } from "./oci-registry/image.ts";

export interface OciRegistryOptions {
  /** Default 0: any free one. */
  readonly port?: number;
  /** Default 127.0.0.1. */
  readonly host?: string;
  /** With `clientCa`, only clients that show a certificate of it get a connection. */
  readonly tls?: { readonly key: string; readonly cert: string; readonly clientCa?: string };
  readonly auth?: RegistryAuth;
  readonly faults?: readonly Fault[];
  /** Default `/v2`; `/prefix/v2` or anything else to try clients that are configured for it. */
  readonly basePath?: string;
  /** Default true; false: 404, as in registries from before distribution spec 1.1. */
  readonly referrersApi?: boolean;
  /** GETs of blobs are answered with 307 to a second port, by links that live this long. */
  readonly redirectBlobs?: { readonly lifeMs: number };
}

export interface OciRegistry {
  /** Without a path: `http://127.0.0.1:port`. */
  readonly url: string;
  /** `host:port`, as image names have it. */
  readonly host: string;
  readonly port: number;
  /** Every request in order of arrival, those to the token endpoint and the storage included. */
  readonly requests: readonly RecordedRequest[];
  /** Body bytes sent, of all answers. */
  readonly bytesSent: number;
  readonly content: RegistryContent;
  readonly faults: Faults;
  readonly authenticator: Authenticator;
  /** There when blobs are redirected. */
  readonly storage: PresignedStorage | undefined;
  push(content: PushedContent): void;
  /** Empties `requests`, and so `bytesSent`. */
  forget(): void;
  /** Ends at once, connections included. Idempotent. */
  close(): Promise<void>;
  /** As if the machine lost power and its address answered with RST: every connection is reset, the port refuses. */
  kill(): Promise<void>;
}

/** A real OCI registry (distribution spec 1.1, push and pull) over sockets, its content in memory, its faults on order. */
export async function startOciRegistry(options: OciRegistryOptions = {}): Promise<OciRegistry> {
  const host = options.host ?? "127.0.0.1";
  const base = options.basePath ?? "/v2";
  const content = new RegistryContent();
  const faults = new Faults(options.faults);
  const authenticator = new Authenticator(options.auth ?? { kind: "none" });
  const requests: RecordedRequest[] = [];
  const storage =
    options.redirectBlobs === undefined
      ? undefined
      : new PresignedStorage(content, options.redirectBlobs.lifeMs);
  const originOf = (server: Server): string => {
    const address = server.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    return `${options.tls === undefined ? "http" : "https"}://${host}:${port}`;
  };

  const listener =
    (routeOf: (url: URL) => Routed, respond: (exchange: Exchange, routed: Routed) => Promise<void>) =>
    (request: IncomingMessage, response: ServerResponse): void => {
      const url = new URL(request.url ?? "/", "http://registry.invalid");
      const routed = routeOf(url);
      const record: RecordedRequest = {
        kind: routed.kind,
        method: request.method ?? "",
        from: request.socket.remoteAddress,
        path: request.url ?? "",
        repository: routed.repository,
        range: request.headers.range,
        authorization: request.headers.authorization,
        headers: request.headers,
        at: Date.now(),
        endedAt: Infinity,
        status: 0,
        bytesSent: 0,
      };
      requests.push(record);
      response.once("close", () => (record.endedAt = Date.now()));
      const exchange: Exchange = { request, response, record, fault: faults.take(record), url };
      serve(exchange, () => respond(exchange, routed)).catch(() => response.destroy());
    };

  const serverOf = (handler: (request: IncomingMessage, response: ServerResponse) => void): Server =>
    options.tls === undefined ? createHttpServer(handler) : createHttpsServer(tlsOf(options.tls), handler);
  const storageServer =
    storage === undefined
      ? undefined
      : serverOf(
          listener(
            () => ({ kind: "storage", repository: undefined, reference: "" }),
            (exchange) => storage.answer(exchange),
          ),
        );
  const deps: RouteDeps = {
    content,
    authenticator,
    uploads: new Uploads(content),
    base,
    origin: () => originOf(registryServer),
    referrersApi: options.referrersApi ?? true,
    blobLocation:
      storage === undefined || storageServer === undefined
        ? undefined
        : (digest) => storage.link(originOf(storageServer), digest),
  };
  const registryServer = serverOf(
    listener(
      (url) => route(url.pathname, base),
      (exchange, routed) => answer(exchange, routed, deps),
    ),
  );

  const servers = storageServer === undefined ? [registryServer] : [registryServer, storageServer];
  const sockets = new Set<Socket>();
  for (const server of servers) {
    server.on("connection", (socket) => {
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
    });
    server.listen(server === registryServer ? (options.port ?? 0) : 0, host);
    await once(server, "listening");
  }
  const end = async (drop: (socket: Socket) => void): Promise<void> => {
    const open = servers.filter((server) => server.listening);
    const closed = open.map((server) => once(server, "close"));
    for (const server of open) server.close();
    for (const socket of sockets) drop(socket);
    await Promise.all(closed);
  };
  const url = originOf(registryServer);
  return {
    url,
    host: new URL(url).host,
    port: Number(new URL(url).port),
    requests,
    get bytesSent() {
      return requests.reduce((sum, request) => sum + request.bytesSent, 0);
    },
    content,
    faults,
    authenticator,
    storage,
    push: (pushed) => content.push(pushed),
    forget: () => void requests.splice(0),
    close: () => end((socket) => socket.destroy()),
    kill: () => end(resetSocket),
  };
}

const tlsOf = ({ clientCa, ...own }: NonNullable<OciRegistryOptions["tls"]>): ServerOptions =>
  clientCa === undefined ? own : { ...own, ca: clientCa, requestCert: true, rejectUnauthorized: true };

/** The faults that come before an answer; what is left of them is `send`'s business. */
async function serve(exchange: Exchange, respond: () => Promise<void>): Promise<void> {
  const { fault, request } = exchange;
  if (fault.silent === true) {
    request.resume();
    return;
  }
  if (fault.delayMs !== undefined) await delay(fault.delayMs, undefined, { ref: false });
  if (fault.redirect !== undefined) {
    request.resume();
    return send(exchange, { status: 307, headers: { location: fault.redirect } });
  }
  if (fault.status === undefined) return respond();
  const headers = fault.retryAfter === undefined ? {} : { "retry-after": fault.retryAfter };
  request.resume();
  if (fault.body !== undefined) return send(exchange, { status: fault.status, headers, body: fault.body });
  return sendError(exchange, fault.status, fault.errorCode ?? "UNKNOWN", headers);
}
