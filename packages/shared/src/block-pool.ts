/** Several TLS records (16 KiB) at once: what is hashed, written and sent on is then large. */
export const BLOCK_BYTES = 256 * 1024;
/** Blocks that wait to be used again; more than that are left to the garbage collector. */
const MAX_FREE = 48;
/** With so many in use (6 MiB) nobody reads far ahead any more. */
const PLENTY = 24;
/** How far the receiver of one body may be ahead of whoever takes its bytes, in bytes: while there is plenty, and then. */
const FAR_AHEAD = 512 * 1024;
const CLOSE_AHEAD = 64 * 1024;

interface Block {
  readonly buffer: Buffer;
  /** Who fills it. Undefined: it is full, or free. */
  filler: BlockFiller | undefined;
  /** Bytes put in so far. */
  filled: number;
  /** Bytes that came back. */
  returned: number;
  /** Bytes of bodies, and of heads before them, as far as `claim` has heard of. */
  claimed: number;
  heads: number;
  /** Apart, for who has to know when the memory itself is gone. */
  readonly use: { now: boolean };
}

export interface BlockPoolOptions {
  /**
   * For bodies that a rate limit holds up: a socket gives no more bytes at once, and none is read far ahead of its limit.
   * Default: what there is.
   */
  readonly partBytes?: number | undefined;
}

/**
 * Memory for what comes out of sockets, in blocks that go round instead of becoming garbage. A block is used again when
 * every byte that was put into it has come back (a reader that keeps up needs one of them, and an idle socket none); when
 * some never do (a body nobody read to its end), it becomes garbage as any buffer does.
 */
export class BlockPool {
  readonly #free: Block[] = [];
  /** By their memory: that is what parts of a block are recognised by. */
  readonly #blocks = new WeakMap<ArrayBufferLike, Block>();
  readonly #lost = new FinalizationRegistry((use: Block["use"]) => {
    if (use.now) this.#inUse -= 1;
  });
  readonly #options: BlockPoolOptions;
  #inUse = 0;

  constructor(options: BlockPoolOptions = {}) {
    this.#options = options;
  }

  /** A socket gives no more at once. */
  get partBytes(): number {
    return this.#options.partBytes ?? BLOCK_BYTES;
  }

  /**
   * Bytes that may wait to be taken at each stage of a body, now. A lone body gets a lot, since a connection that stops
   * and goes costs CPU (a quarter more for a relay with 256 KiB); many share what a node should spend on it.
   */
  get readAhead(): number {
    return this.#inUse < PLENTY && this.#options.partBytes === undefined ? FAR_AHEAD : CLOSE_AHEAD;
  }

  /** A writer of its own for each socket. */
  filler(): BlockFiller {
    return new BlockFiller((filler) => this.#take(filler));
  }

  /**
   * These are bytes of a body: whatever was read before them and was none, the head of an answer, is parsed, and nobody's
   * any more. Else each answer would cost a block: with pieces of 512 KiB a third of all that is received. In the order of
   * the connection, before anything behind them is looked at; heads of which nobody says so never come back.
   */
  claim(bytes: Uint8Array): void {
    const block = this.#blocks.get(bytes.buffer);
    if (block === undefined || !block.use.now) return;
    block.claimed += bytes.byteLength;
    const heads = bytes.byteOffset + bytes.byteLength - block.claimed;
    block.returned += heads - block.heads;
    block.heads = heads;
  }

  /** Nobody looks at these bytes any more. Each byte of a block may be given once; foreign bytes are ignored. */
  recycle(bytes: Uint8Array): void {
    const block = this.#blocks.get(bytes.buffer);
    if (block === undefined || !block.use.now) return;
    block.returned += bytes.byteLength;
    if (block.returned < block.filled) return;
    block.filler = undefined;
    block.use.now = false;
    this.#inUse -= 1;
    if (this.#free.length < MAX_FREE) this.#free.push(block);
  }

  #take(filler: BlockFiller): Block {
    const block = this.#free.pop() ?? this.#create();
    block.filler = filler;
    block.filled = 0;
    block.returned = 0;
    block.claimed = 0;
    block.heads = 0;
    block.use.now = true;
    this.#inUse += 1;
    return block;
  }

  #create(): Block {
    // Not from Node's shared slab, which others also write to.
    const buffer = Buffer.allocUnsafeSlow(BLOCK_BYTES);
    const block: Block = {
      buffer,
      filler: undefined,
      filled: 0,
      returned: 0,
      claimed: 0,
      heads: 0,
      use: { now: false },
    };
    this.#blocks.set(buffer.buffer, block);
    this.#lost.register(buffer.buffer, block.use);
    return block;
  }
}

/** Copies bytes into blocks, one after the other. */
export class BlockFiller {
  readonly #takeBlock: (filler: BlockFiller) => Block;
  #block: Block | undefined;

  constructor(takeBlock: (filler: BlockFiller) => Block) {
    this.#takeBlock = takeBlock;
  }

  /** `take` gets the copies: parts of blocks, one or more. */
  copy(bytes: Uint8Array, take: (part: Buffer) => void): void {
    let rest = bytes;
    while (rest.byteLength > 0) {
      // It may have gone back to the pool since, and be another's by now.
      const block = this.#block?.filler === this ? this.#block : this.#takeBlock(this);
      const { buffer, filled: start } = block;
      const length = Math.min(rest.byteLength, buffer.byteLength - start);
      buffer.set(rest.subarray(0, length), start);
      block.filled += length;
      if (block.filled === buffer.byteLength) block.filler = undefined;
      this.#block = block.filler === undefined ? undefined : block;
      rest = rest.subarray(length);
      take(buffer.subarray(start, block.filled));
    }
  }
}
