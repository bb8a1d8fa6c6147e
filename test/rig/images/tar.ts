/** One regular file of a tar archive, in the ustar form every tool reads. */
export interface TarFile {
  /** Up to 100 bytes, no leading slash. */
  readonly name: string;
  readonly content: Uint8Array;
  /** Permissions, default 0o644. */
  readonly mode?: number;
}

const BLOCK = 512;

/** An uncompressed tar with fixed owner and time, so that equal content gives equal bytes. */
export function tarOf(files: readonly TarFile[]): Buffer {
  const parts: Uint8Array[] = [];
  for (const { name, content, mode = 0o644 } of files) {
    parts.push(
      header(name, content.length, mode),
      content,
      Buffer.alloc((BLOCK - (content.length % BLOCK)) % BLOCK),
    );
  }
  parts.push(Buffer.alloc(2 * BLOCK));
  return Buffer.concat(parts);
}

function header(name: string, size: number, mode: number): Buffer {
  const block = Buffer.alloc(BLOCK);
  if (Buffer.byteLength(name) > 100) throw new RangeError(`"${name}" is too long for a tar header`);
  block.write(name, 0);
  block.write(`${mode.toString(8).padStart(7, "0")}\0`, 100);
  block.write("0000000\0", 108);
  block.write("0000000\0", 116);
  block.write(`${size.toString(8).padStart(11, "0")}\0`, 124);
  block.write("14000000000\0", 136);
  block.write("        ", 148);
  block.write("0", 156);
  // Magic and version.
  block.write("ustar", 257);
  block.write("00", 263);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}
