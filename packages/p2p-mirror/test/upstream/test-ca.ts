import { webcrypto } from "node:crypto";
// oxlint-disable-next-line import/no-unassigned-import -- @peculiar/x509 wants this polyfill to be there before it
import "reflect-metadata";
import * as x509 from "@peculiar/x509";

export interface KeyPair {
  /** PEM. */
  readonly cert: string;
  readonly key: string;
}

export interface TestCa {
  readonly cert: string;
  /** A certificate for 127.0.0.1 and `names`, for servers and clients. */
  issue(...names: string[]): Promise<KeyPair>;
}

const ALGORITHM = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" } as const;
const HOUR_MS = 3_600_000;

const pemOf = async (key: webcrypto.CryptoKey): Promise<string> => {
  const der = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", key)).toString("base64");
  return `-----BEGIN PRIVATE KEY-----\n${der.replaceAll(/.{64}/g, "$&\n")}\n-----END PRIVATE KEY-----\n`;
};

/** A private PKI, as companies have it in front of their registries. */
export async function createTestCa(name = "test CA"): Promise<TestCa> {
  x509.cryptoProvider.set(webcrypto);
  const keys = await webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
  const validity = {
    notBefore: new Date(Date.now() - HOUR_MS),
    notAfter: new Date(Date.now() + HOUR_MS),
  };
  const ca = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: "01",
    name: `CN=${name}`,
    ...validity,
    signingAlgorithm: ALGORITHM,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
    ],
  });
  let serial = 1;
  return {
    cert: ca.toString("pem"),
    async issue(...names) {
      const leaf = await webcrypto.subtle.generateKey(ALGORITHM, true, ["sign", "verify"]);
      serial += 1;
      const cert = await x509.X509CertificateGenerator.create({
        serialNumber: serial.toString(16).padStart(2, "0"),
        subject: `CN=${names[0] ?? "127.0.0.1"}`,
        issuer: ca.subject,
        ...validity,
        signingAlgorithm: ALGORITHM,
        publicKey: leaf.publicKey,
        signingKey: keys.privateKey,
        extensions: [
          new x509.SubjectAlternativeNameExtension([
            { type: "ip", value: "127.0.0.1" },
            ...names.map((value) => ({ type: "dns" as const, value })),
          ]),
        ],
      });
      return { cert: cert.toString("pem"), key: await pemOf(leaf.privateKey) };
    },
  };
}
