import { constants, createPublicKey, X509Certificate } from "node:crypto";
import type { Socket } from "node:net";
import { TLSSocket, type PeerCertificate } from "node:tls";
import { publicKeyFromRaw } from "@libp2p/crypto/keys";
import { peerIdFromPublicKey } from "@libp2p/peer-id";
import { SourceError } from "@p2p-mirror/shared";
import { createCertificate } from "./certificate.ts";
import type { ClusterSecret, ClusterSecrets } from "./cluster-secret.ts";
import { keyObjectOf, privateKeyOfSeed, rawPublicKey } from "./ed25519.ts";
import type { Identity } from "./identity.ts";

/** TLS options that both sides share, for node:tls, node:https, fastify's `https` and undici's `connect`. */
export interface PeerTlsOptions {
  readonly key: string;
  readonly cert: string;
  readonly ca: string[];
  readonly minVersion: "TLSv1.3";
  readonly maxVersion: "TLSv1.3";
  readonly ciphers: string;
  readonly ecdhCurve: string;
  readonly rejectUnauthorized: true;
}

export interface PeerServerOptions extends PeerTlsOptions {
  readonly requestCert: true;
  readonly secureOptions: number;
}

export interface PeerClientOptions extends PeerTlsOptions {
  readonly checkServerIdentity: (host: string, certificate: PeerCertificate) => Error | undefined;
  /** undici: keeps no sessions. node:tls skips `checkServerIdentity` on a resumed one. */
  readonly maxCachedSessions: 0;
}

export interface PeerTls {
  /** For the listener of the peer data plane: only nodes with an accepted secret get through the handshake. */
  serverOptions(): PeerServerOptions;
  /** For a connection to one peer: the handshake fails unless the certificate's key is that peer ID. */
  clientOptions(peerId: string): PeerClientOptions;
  /** The peer ID of the other side of a TLS socket whose handshake is over; undefined when it cannot be told. */
  peerIdOf(socket: Socket): string | undefined;
}

/** Measured on x64 with AES-NI over loopback: AES-128 is ahead of AES-256 and of ChaCha20, which stays for CPUs without it. */
const CIPHERS = "TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384";

interface ClusterCa {
  readonly certificate: string;
  issue(identity: Identity): string;
}

/** The CA of a secret: every node derives the same key, and signs for itself. Who holds the secret is a member. */
function clusterCa(secret: ClusterSecret): ClusterCa {
  const signer = privateKeyOfSeed(secret.derive("peer tls certificate authority", 32));
  const name = `p2p-mirror cluster ${secret.id}`;
  return {
    certificate: createCertificate({
      subject: name,
      issuer: name,
      publicKey: createPublicKey(signer),
      signer,
      ca: true,
    }),
    issue: (identity) =>
      createCertificate({
        subject: identity.id,
        issuer: name,
        publicKey: createPublicKey(keyObjectOf(identity.privateKey)),
        signer,
        ca: false,
      }),
  };
}

/** The names in a certificate prove nothing here: any member can write any. Its key does, by the handshake's signature. */
function peerIdOfCertificate(certificate: X509Certificate): string | undefined {
  const raw = rawPublicKey(certificate.publicKey);
  return raw === undefined ? undefined : peerIdFromPublicKey(publicKeyFromRaw(raw)).toString();
}

/**
 * Mutual TLS 1.3 between the nodes of a cluster. The certificate is signed by the CA of the first secret; those of all
 * accepted secrets are trusted, so that a secret can be changed node by node.
 */
export function createPeerTls(identity: Identity, secrets: ClusterSecrets): PeerTls {
  const authorities = secrets.accepted.map(clusterCa);
  const common: PeerTlsOptions = {
    key: keyObjectOf(identity.privateKey).export({ type: "pkcs8", format: "pem" }).toString(),
    cert: clusterCa(secrets.first).issue(identity),
    ca: authorities.map((authority) => authority.certificate),
    minVersion: "TLSv1.3",
    maxVersion: "TLSv1.3",
    ciphers: CIPHERS,
    ecdhCurve: "X25519",
    rejectUnauthorized: true,
  };
  return {
    serverOptions: () => ({ ...common, requestCert: true, secureOptions: constants.SSL_OP_NO_TICKET }),
    clientOptions: (peerId) => ({
      ...common,
      maxCachedSessions: 0,
      checkServerIdentity: (host, certificate) => {
        const found = peerIdOfCertificate(new X509Certificate(certificate.raw));
        if (found === peerId) return undefined;
        return new SourceError("UNREACHABLE", peerId, {
          message: `at ${host} another node answers: ${found ?? "no Ed25519 key"}`,
        });
      },
    }),
    peerIdOf: (socket) => {
      if (!(socket instanceof TLSSocket) || !socket.authorized) return undefined;
      const certificate = socket.getPeerX509Certificate();
      return certificate === undefined ? undefined : peerIdOfCertificate(certificate);
    },
  };
}
