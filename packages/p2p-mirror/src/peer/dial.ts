import type { OnReadOpts } from "node:net";
import { connect, createSecureContext, type ConnectionOptions, type PeerCertificate } from "node:tls";
import { BlockSocket, codeOf, SourceError, type BlockPool } from "@p2p-mirror/shared";
import type { buildConnector } from "undici";
import type { Peer } from "../routing/router.ts";

/** What this side needs of the cluster's TLS (trust/peer-tls.ts has it all). */
export interface PeerClientTls {
  /** Options for node:tls under which the handshake fails unless the certificate's key is that peer ID. */
  clientOptions(peerId: string): ConnectionOptions & {
    readonly rejectUnauthorized: true;
    readonly checkServerIdentity: (host: string, certificate: PeerCertificate) => Error | undefined;
  };
}

export type DialFailure = "timeout" | "refused" | "tls" | "wrong-identity" | "other";

const REFUSED: ReadonlySet<string> = new Set(["ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "ENOTFOUND"]);

/** Of the time for the connection. */
const HANDSHAKE_FACTOR = 2;

/** Codes of OpenSSL's and Node's TLS errors, and of certificate verification (X509_V_ERR_*, which Node gives bare). */
const TLS_CODE = /^(ERR_SSL_|ERR_TLS_|UNABLE_TO_|CERT_|SELF_SIGNED_|DEPTH_ZERO_|INVALID_|EPROTO$)/;

export const isTlsFailure = (error: unknown): boolean => TLS_CODE.test(codeOf(error));

/**
 * Connects to one peer: TCP within `timeoutMs`, then the handshake within twice that (a kernel accepts at once, also for a
 * process that is busy with other things), the peer's identity checked on every socket.
 * undici's own connector is not used: its timers tick in steps of half a second, and it keeps TLS sessions, on whose
 * resumption node:tls checks no identity. All failures are SourceError `UNREACHABLE` with the reason as `cause`.
 */
export function createDialer(
  peer: Peer,
  timeoutMs: number,
  deps: { tls: PeerClientTls; pool: BlockPool; onFailure: (reason: DialFailure) => void },
): buildConnector.connector {
  const { key, cert, ca, minVersion, maxVersion, ciphers, ecdhCurve, ...options } = deps.tls.clientOptions(
    peer.id,
  );
  // Parsing key and certificates costs more than the rest of a connection; all connections to the peer share it.
  const secureContext = createSecureContext({ key, cert, ca, minVersion, maxVersion, ciphers, ecdhCurve });
  return (_, callback) => {
    let wrongIdentity = false;
    const socket = new BlockSocket(deps.pool);
    const connection: ConnectionOptions & { onread: OnReadOpts } = {
      ...options,
      onread: socket.onread,
      secureContext,
      host: peer.host,
      port: peer.port,
      ALPNProtocols: ["http/1.1"],
      checkServerIdentity: (host: string, certificate: PeerCertificate): Error | undefined => {
        const error = options.checkServerIdentity(host, certificate);
        wrongIdentity = error !== undefined;
        return error;
      },
    };
    const tls = connect(connection);
    socket.attach(tls);
    const fail = (reason: DialFailure, message: string, cause?: unknown): void => {
      settle();
      // Whatever the socket says after this is of no interest, but must not be unhandled.
      socket.on("error", () => undefined).destroy();
      deps.onFailure(reason);
      callback(new SourceError("UNREACHABLE", peer.id, { message, cause }), null);
    };
    const onError = (error: Error): void => {
      if (wrongIdentity) return fail("wrong-identity", "another node answers at its address", error);
      if (isTlsFailure(error)) return fail("tls", "the TLS handshake failed", error);
      return fail(REFUSED.has(codeOf(error)) ? "refused" : "other", "no connection", error);
    };
    const onConnect = (): void => {
      settle();
      callback(null, socket.asSocket());
    };
    // A timer that is late because this process was busy must not beat the answer that waits in the socket.
    let late: NodeJS.Immediate | undefined;
    const giveUpAfter = (ms: number, what: string): NodeJS.Timeout =>
      setTimeout(() => {
        late = setImmediate(() => fail("timeout", `no ${what} within ${ms} ms`));
      }, ms);
    let timer = giveUpAfter(timeoutMs, "connection");
    const onAccepted = (): void => {
      clearTimeout(timer);
      timer = giveUpAfter(HANDSHAKE_FACTOR * timeoutMs, "handshake");
    };
    const settle = (): void => {
      clearTimeout(timer);
      clearImmediate(late);
      socket.off("error", onError);
      tls.off("connect", onAccepted).off("secureConnect", onConnect);
    };
    socket.on("error", onError);
    tls.setNoDelay(true).setKeepAlive(true, 30_000).on("connect", onAccepted).on("secureConnect", onConnect);
  };
}
