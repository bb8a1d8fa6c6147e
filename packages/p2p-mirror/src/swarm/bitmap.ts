/** More pieces than this and there is no swarm: 64 GiB of 8 MiB pieces, 1 KiB of bits in a message. */
export const MAX_PIECES = 8_192;

/** The pieces for which `has` is true, a bit each, lowest first. */
export function packBits(count: number, has: (piece: number) => boolean): Uint8Array {
  const bits = new Uint8Array(Math.ceil(count / 8));
  for (let piece = 0; piece < count; piece += 1) {
    if (has(piece)) bits[piece >> 3] = (bits[piece >> 3] ?? 0) | (1 << (piece & 7));
  }
  return bits;
}

export const bitAt = (bits: Uint8Array, piece: number): boolean =>
  ((bits[piece >> 3] ?? 0) & (1 << (piece & 7))) !== 0;
