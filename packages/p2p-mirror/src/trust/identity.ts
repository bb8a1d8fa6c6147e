import { randomUUID } from "node:crypto";
import { chmod, mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { generateKeyPair, privateKeyFromProtobuf, privateKeyToProtobuf } from "@libp2p/crypto/keys";
import type { Ed25519PrivateKey, PeerId } from "@libp2p/interface";
import { peerIdFromPrivateKey } from "@libp2p/peer-id";
import { codeOf, ConfigError, isDiskFull, type Logger } from "@p2p-mirror/shared";

/** Who this node is: its libp2p key, from which its peer ID, its TLS certificate and its signatures come. */
export interface Identity {
  readonly privateKey: Ed25519PrivateKey;
  readonly peerId: PeerId;
  /** The peer ID as text, as in `Peer.id`. */
  readonly id: string;
}

export const IDENTITY_FILE = "identity.key";

export function identityOf(privateKey: Ed25519PrivateKey): Identity {
  const peerId = peerIdFromPrivateKey(privateKey);
  return { privateKey, peerId, id: peerId.toString() };
}

/** A new identity that is kept nowhere (tests, tools). */
export const newIdentity = async (): Promise<Identity> => identityOf(await generateKeyPair("Ed25519"));

async function readKey(file: string): Promise<Ed25519PrivateKey | undefined> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(file);
  } catch (error) {
    const code = codeOf(error);
    if (code === "ENOENT") return undefined;
    const fix = `the node's key cannot be read from it (${code}); make it a file that this user can read, or remove it`;
    throw new ConfigError("data-dir", file, fix, { cause: error });
  }
  const fix = "delete the file, and the node gets a new identity at its next start";
  try {
    const key = privateKeyFromProtobuf(bytes);
    if (key.type === "Ed25519") return key;
  } catch (cause) {
    throw new ConfigError("data-dir", file, `no libp2p private key is in it; ${fix}`, { cause });
  }
  throw new ConfigError("data-dir", file, `the key in it is not of type Ed25519; ${fix}`);
}

/** Whole or not at all, also when the machine loses power: a half-written key would be another node, or none. */
async function writeKey(directory: string, file: string, key: Ed25519PrivateKey): Promise<void> {
  await mkdir(directory, { recursive: true });
  const temporary = `${file}.${randomUUID()}`;
  try {
    const handle = await open(temporary, "wx", 0o600);
    try {
      await handle.writeFile(privateKeyToProtobuf(key));
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/**
 * The identity in `<dataDir>/identity.key` (a libp2p private key protobuf, mode 0600); made at the first start. Where the
 * disk is full it is for this run only: the node is a stranger to the others after the next start, and works until then.
 * @throws ConfigError when it cannot be read, or holds something else.
 */
export async function loadIdentity(dataDir: string, logger: Logger): Promise<Identity> {
  const file = join(dataDir, IDENTITY_FILE);
  const kept = await readKey(file);
  if (kept !== undefined) {
    await chmod(file, 0o600);
    return identityOf(kept);
  }
  const identity = await newIdentity();
  try {
    await writeKey(dataDir, file, identity.privateKey);
  } catch (error) {
    if (!isDiskFull(error)) throw error;
    logger.warn({ file, err: error }, "the disk is full: this node's identity is new, and for this run only");
  }
  return identity;
}
