import { createHash, type KeyObject } from "node:crypto";
import { signEd25519 } from "./ed25519.ts";

/*
 * The two certificates of the peer data plane, written as DER (X.509: RFC 5280; Ed25519 in it: RFC 8410). The shapes are
 * fixed and a dozen fields long; the library for it (@peculiar/x509) costs 22 MB of memory and 200 ms at start.
 */

const TAG = {
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  oid: 0x06,
  utf8: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
  version: 0xa0,
  extensions: 0xa3,
} as const;

function der(tag: number, ...contents: Uint8Array[]): Buffer {
  const content = Buffer.concat(contents);
  const length = content.byteLength;
  const header =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...header]), content]);
}

const hex = (text: string): Buffer => Buffer.from(text, "hex");
const oid = (encoded: string): Buffer => der(TAG.oid, hex(encoded));
const TRUE = hex("0101ff");

const ED25519 = der(TAG.sequence, oid("2b6570"));

const commonName = (text: string): Buffer =>
  der(TAG.sequence, der(TAG.set, der(TAG.sequence, oid("550403"), der(TAG.utf8, Buffer.from(text, "utf8")))));

const extension = (id: string, critical: boolean, value: Uint8Array): Buffer =>
  der(TAG.sequence, oid(id), ...(critical ? [TRUE] : []), der(TAG.octetString, value));

/** Clocks at the edge are wrong, and a certificate that is always valid cannot break a cluster at night. RFC 5280, 4.1.2.5. */
const FOR_EVER = der(
  TAG.sequence,
  der(TAG.utcTime, Buffer.from("700101000000Z")),
  der(TAG.generalizedTime, Buffer.from("99991231235959Z")),
);

const CA_EXTENSIONS = [
  extension("551d13", true, der(TAG.sequence, TRUE, hex("020100"))), // basicConstraints: a CA, of leaves only
  extension("551d0f", true, hex("03020204")), // keyUsage: keyCertSign
];
const NODE_EXTENSIONS = [
  extension("551d13", true, der(TAG.sequence)), // basicConstraints: no CA
  extension("551d0f", true, hex("03020780")), // keyUsage: digitalSignature
  // extKeyUsage: serverAuth, clientAuth
  extension("551d25", false, der(TAG.sequence, oid("2b06010505070301"), oid("2b06010505070302"))),
];

export interface CertificateRequest {
  readonly subject: string;
  readonly issuer: string;
  /** Of the subject: Ed25519. */
  readonly publicKey: KeyObject;
  /** Of the issuer: Ed25519. */
  readonly signer: KeyObject;
  readonly ca: boolean;
}

/** A certificate as PEM. The same request gives the same bytes: Ed25519 signs without randomness, the serial is a hash. */
export function createCertificate(request: CertificateRequest): string {
  const spki = request.publicKey.export({ type: "spki", format: "der" });
  const serial = createHash("sha256").update(request.issuer).update(spki).digest().subarray(0, 16);
  serial[0] = ((serial[0] ?? 0) & 0x3f) | 0x40; // positive, and never shortened
  const tbs = der(
    TAG.sequence,
    der(TAG.version, hex("020102")),
    der(TAG.integer, serial),
    ED25519,
    commonName(request.issuer),
    FOR_EVER,
    commonName(request.subject),
    spki,
    der(TAG.extensions, der(TAG.sequence, ...(request.ca ? CA_EXTENSIONS : NODE_EXTENSIONS))),
  );
  const signature = signEd25519(request.signer, tbs);
  const certificate = der(TAG.sequence, tbs, ED25519, der(TAG.bitString, Buffer.from([0]), signature));
  const lines = certificate.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
}
