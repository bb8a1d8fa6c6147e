import type { RequestListener, Server } from "node:http";
import { codeOf } from "@p2p-mirror/shared";
import type { Connection } from "./connections.ts";
import { createServer, STATUS_CODES } from "./node-http.ts";
import { OciError, type OciStatus } from "./oci-errors.ts";

/** Longer than containerd's 30 s, so that it is the client that closes and no request meets a closing connection. */
const KEEP_ALIVE_MS = 90_000;
/** Room for a long Bearer token (16 KiB are seen) beside the usual headers. */
const MAX_HEADER_BYTES = 32 * 1024;
/** All clients are on this node: containerd opens a handful for each image it pulls. */
const MAX_CONNECTIONS = 1024;
/** Fewer wake-ups for a fast reader; one that stops after a chunk has at most so much in vain. */
const SOCKET_BUFFER = 256 * 1024;

/** How long a client may take to say what it wants; an honest one of this node sends it in one packet. Milliseconds. */
export interface ReceiveLimits {
  readonly headersMs: number;
  readonly requestMs: number;
  /** How often the two are checked. */
  readonly checkMs: number;
}

export const RECEIVE_LIMITS: ReceiveLimits = { headersMs: 10_000, requestMs: 20_000, checkMs: 5_000 };

/** The HTTP/1.1 server below the registry endpoint, with every limit said explicitly. */
export function createRegistryServer(listener: RequestListener, limits: ReceiveLimits): Server {
  const server = createServer(
    {
      keepAliveTimeout: KEEP_ALIVE_MS,
      headersTimeout: limits.headersMs,
      requestTimeout: limits.requestMs,
      connectionsCheckingInterval: limits.checkMs,
      maxHeaderSize: MAX_HEADER_BYTES,
      highWaterMark: SOCKET_BUFFER,
      noDelay: true,
      // Finds the dead client of a body that waits for ever for its reader.
      keepAlive: true,
      keepAliveInitialDelay: 60_000,
      insecureHTTPParser: false,
      // Refused like any other request that is not right, in the OCI form (`refuseWhatIsNoPull`).
      requireHostHeader: false,
    },
    listener,
  );
  // Node would invite the body of an upload, or answer 417 in a form of its own; here both are requests like any other.
  server.on("checkContinue", listener).on("checkExpectation", listener);
  // A silent socket is a waiting request or a slow reader; both have their own bounds.
  server.timeout = 0;
  server.maxConnections = MAX_CONNECTIONS;
  return server;
}

/**
 * Bytes that are no HTTP request, or not in time. Answered in the OCI form unless an answer is under way on the
 * connection, which then ends short; never with Node's own 408, which containerd would repeat five times.
 */
export function answerClientError(error: unknown, connection: Connection): void {
  const { socket } = connection;
  const code = codeOf(error);
  if (code === "ECONNRESET" || socket.destroyed || !socket.writable) {
    if (!connection.isCut) socket.destroy();
    return;
  }
  if (connection.pending === 0) {
    const status: OciStatus = code === "HPE_HEADER_OVERFLOW" ? 431 : 400;
    const why = status === 431 ? "the headers are too large" : "no valid HTTP request";
    const body = new OciError(status, "UNSUPPORTED", why).body();
    socket.write(
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\nContent-Type: application/json\r\n` +
        `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
    );
  }
  connection.cut(1_000);
}
