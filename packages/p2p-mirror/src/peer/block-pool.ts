import { BufferPool } from "@p2p-mirror/shared";

/** Several TLS records (16 KiB) at once: what is hashed, written and sent on is then large. */
export const BLOCK_BYTES = 256 * 1024;
/** Blocks that wait to be used again; more than that are left to the garbage collector. */
const MAX_FREE = 32;

interface Block {
  readonly buffer: Buffer;
  /** Bytes put in so far. */
  filled: number;
  /** Bytes that came back. */
  returned: number;
}

/**
 * Memory for what comes out of sockets, in blocks that go round instead of becoming garbage. A block is used again when
 * every byte that was put into it has come back; when some never do (the head of an answer, a body nobody read to its
 * end), it becomes garbage as any buffer does.
 */
export class BlockPool {
  readonly #buffers = new BufferPool(BLOCK_BYTES, MAX_FREE);
  /** By their memory: that is what parts of a block are recognised by. */
  readonly #blocks = new WeakMap<ArrayBufferLike, Block>();

  /** A writer of its own for each socket. */
  filler(): BlockFiller {
    return new BlockFiller(() => this.#take());
  }

  /** Nobody looks at these bytes any more. Each byte of a block may be given once; foreign bytes are ignored. */
  recycle(bytes: Uint8Array): void {
    const block = this.#blocks.get(bytes.buffer);
    if (block === undefined) return;
    block.returned += bytes.byteLength;
    if (block.returned < block.buffer.byteLength) return;
    this.#blocks.delete(bytes.buffer);
    this.#buffers.give(block.buffer);
  }

  #take(): Block {
    const buffer = this.#buffers.take(BLOCK_BYTES);
    const block = { buffer, filled: 0, returned: 0 };
    this.#blocks.set(buffer.buffer, block);
    return block;
  }
}

/** Copies bytes into blocks, one after the other. */
export class BlockFiller {
  readonly #takeBlock: () => Block;
  #block: Block | undefined;

  constructor(takeBlock: () => Block) {
    this.#takeBlock = takeBlock;
  }

  /** `take` gets the copies: parts of blocks, one or more. */
  copy(bytes: Uint8Array, take: (part: Buffer) => void): void {
    let rest = bytes;
    while (rest.byteLength > 0) {
      const block = (this.#block ??= this.#takeBlock());
      const { buffer, filled: start } = block;
      const length = Math.min(rest.byteLength, buffer.byteLength - start);
      buffer.set(rest.subarray(0, length), start);
      block.filled += length;
      rest = rest.subarray(length);
      take(buffer.subarray(start, block.filled));
      if (block.filled === buffer.byteLength) this.#block = undefined;
    }
  }
}
