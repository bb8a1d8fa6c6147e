import { hkdfSync } from "node:crypto";
import { open, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { ConfigError } from "@p2p-mirror/shared";

/** What the nodes of a cluster share. The secret itself is not readable; keys are derived from it. */
export interface ClusterSecret {
  /** Names the secret without giving it away (16 hex digits); part of protocol ids and CA names. */
  readonly id: string;
  /** HKDF-SHA256 (RFC 5869) of the secret; another purpose gives an unrelated key. */
  derive(purpose: string, bytes: number): Buffer;
}

export interface ClusterSecrets {
  /** Used for what this node makes. */
  readonly first: ClusterSecret;
  /** Accepted from others, `first` included, without duplicates. */
  readonly accepted: readonly ClusterSecret[];
  /** No secret was given: any process that can connect is a peer. Listeners then belong on loopback. */
  readonly open: boolean;
}

export const MIN_SECRET_BYTES = 32;
const MAX_FILE_BYTES = 64 * 1024;
const FIELD = "cluster-secret-file";

/** Without a secret all keys come from this text: the same code path, and no protection. */
const NO_SECRET = "p2p-mirror without a cluster secret: every process is a peer";

export function clusterSecret(secret: Uint8Array): ClusterSecret {
  const derive = (purpose: string, bytes: number): Buffer =>
    Buffer.from(hkdfSync("sha256", secret, "p2p-mirror cluster secret", purpose, bytes));
  return { id: derive("key id", 8).toString("hex"), derive };
}

/** The first secret is used, all are accepted; none: the open mesh. */
export function clusterSecrets(secrets: readonly Uint8Array[]): ClusterSecrets {
  const [first, ...others] = secrets.map(clusterSecret);
  if (first === undefined) {
    const none = clusterSecret(Buffer.from(NO_SECRET));
    return { first: none, accepted: [none], open: true };
  }
  const byId = new Map([first, ...others].map((one) => [one.id, one]));
  return { first, accepted: [...byId.values()], open: false };
}

async function readBounded(file: string): Promise<Buffer> {
  const handle = await open(file, "r");
  try {
    const buffer = Buffer.alloc(MAX_FILE_BYTES + 1);
    const { bytesRead } = await handle.read(buffer, 0, buffer.byteLength, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}

const isSpace = (byte: number | undefined): boolean =>
  byte === 0x20 || (byte !== undefined && byte >= 0x09 && byte <= 0x0d);

/** Editors and `echo` add a line end; nodes must agree whatever wrote the file. Any bytes may be inside. */
function trim(bytes: Buffer): Buffer {
  let start = 0;
  let end = bytes.byteLength;
  while (start < end && isSpace(bytes[start])) start += 1;
  while (end > start && isSpace(bytes[end - 1])) end -= 1;
  return bytes.subarray(start, end);
}

/** More than two are of no use; a directory that holds something else is a mistake. */
const MAX_FILES = 8;

/** A directory stands for its files by name; names with a dot in front (kubelet's own links among them) are passed over. */
async function filesIn(path: string): Promise<string[]> {
  if ((await stat(path).catch(() => undefined))?.isDirectory() !== true) return [path];
  const names = (await readdir(path)).filter((name) => !name.startsWith(".")).toSorted();
  if (names.length === 0 || names.length > MAX_FILES) {
    throw new ConfigError(
      FIELD,
      path,
      `a directory must hold 1 to ${MAX_FILES} secrets; it holds ${names.length}`,
    );
  }
  return names.map((name) => join(path, name));
}

/**
 * Reads `--cluster-secret-file` (repeatable).
 * @throws ConfigError when a file cannot be read, or holds fewer than 32 bytes without the whitespace around them.
 */
export async function readClusterSecrets(files: readonly string[]): Promise<ClusterSecrets> {
  const secrets: Uint8Array[] = [];
  for (const file of (await Promise.all(files.map(filesIn))).flat()) {
    let bytes: Buffer;
    try {
      bytes = await readBounded(file);
    } catch (cause) {
      throw new ConfigError(FIELD, file, "the file cannot be read; make it readable for this user", {
        cause,
      });
    }
    if (bytes.byteLength > MAX_FILE_BYTES) {
      throw new ConfigError(
        FIELD,
        file,
        `the file has more than ${MAX_FILE_BYTES} bytes; 32 random bytes will do`,
      );
    }
    const secret = trim(bytes);
    if (secret.byteLength < MIN_SECRET_BYTES) {
      throw new ConfigError(
        FIELD,
        file,
        `the file holds ${secret.byteLength} bytes, fewer than ${MIN_SECRET_BYTES}; ` +
          `make one with: openssl rand -hex 32 > ${file}`,
      );
    }
    secrets.push(secret);
  }
  return clusterSecrets(secrets);
}
