/**
 * Loaded before a mirror starts: what it gives to its peers is wrong whenever the file LIE_FILE says how. Everything else
 * of the daemon is as it is, its signatures included.
 */
import { appendFileSync, readFileSync } from "node:fs";
import { Readable } from "node:stream";
import { buffer } from "node:stream/consumers";
import type { PieceContent } from "../../packages/p2p-mirror/src/transfer/content.ts";
import { NodeContent } from "../../packages/p2p-mirror/src/transfer/local-content.ts";
import type { Lie } from "./lies.ts";

const CHUNK = 64 * 1024;
/** Bytes by which a piece is too long. */
const MORE = 1_000;

const LIES: Readonly<Record<Lie, (bytes: Buffer) => Buffer>> = {
  flips: (bytes) => {
    const middle = Math.floor(bytes.length / 2);
    bytes[middle] = (bytes[middle] ?? 0) ^ 1;
    return bytes;
  },
  short: (bytes) => bytes.subarray(0, Math.floor(bytes.length / 2)),
  long: (bytes) => Buffer.concat([bytes, Buffer.alloc(MORE)]),
};

const lieNow = (): Lie | undefined => {
  try {
    const text = readFileSync(process.env["LIE_FILE"] ?? "", "utf8");
    return text === "flips" || text === "short" || text === "long" ? text : undefined;
  } catch {
    return undefined;
  }
};

function* chunksOf(bytes: Buffer): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += CHUNK) yield bytes.subarray(at, at + CHUNK);
}

function lying(piece: PieceContent, lie: Lie): PieceContent {
  return {
    length: lie === "long" ? piece.length + MORE : piece.length,
    hash: piece.hash,
    open: async (options) => {
      const bytes = LIES[lie](await buffer(await piece.open(options)));
      appendFileSync(process.env["LIES_TOLD_FILE"] ?? "", `${lie}\n`);
      return Readable.from(chunksOf(bytes), { objectMode: false });
    },
  };
}

// oxlint-disable-next-line typescript/unbound-method -- applied to its own object below
const honest = NodeContent.prototype.piece;
NodeContent.prototype.piece = async function piece(...asked) {
  const found = await honest.apply(this, asked);
  const lie = lieNow();
  return found === undefined || lie === undefined ? found : lying(found, lie);
};
