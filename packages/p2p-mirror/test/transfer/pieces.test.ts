import t from "tap";
import { PieceGeometry } from "../../src/transfer/pieces.ts";

const KIB = 1024;
const MIB = 1024 * KIB;

await t.test("pieces of size/128, from 128 KiB to 8 MiB; where they are large, 256 KiB at the front", (t) => {
  const cases: readonly (readonly [number, number, number])[] = [
    // Bytes of the blob, KiB of a piece, how many.
    [1, 128, 1],
    [128 * KIB, 128, 1],
    [128 * KIB + 1, 128, 2],
    [16 * MIB, 128, 128],
    [16 * MIB + 1, 256, 65],
    [64 * MIB, 512, 2 + 127],
    [400 * KIB * 1024, 4096, 16 + 99],
    [2 ** 35, 8192, 32 + 4_095],
  ];
  for (const [size, kib, count] of cases) {
    const geometry = new PieceGeometry(size);
    t.equal(geometry.pieceSize, kib * KIB, `${size}: size of a piece`);
    t.equal(geometry.count, count, `${size}: how many`);
    let at = 0;
    for (let piece = 0; piece < count; piece += 1) {
      if (geometry.start(piece) !== at)
        t.fail(`${size}: piece ${piece} does not begin where the last one ends`);
      const length = geometry.end(piece) - at;
      if (length < 1 || length > geometry.pieceSize) t.fail(`${size}: piece ${piece} has ${length} bytes`);
      if (geometry.at(at) !== piece || geometry.at(geometry.end(piece) - 1) !== piece)
        t.fail(`${size}: bytes of piece ${piece} are looked for in another`);
      at = geometry.end(piece);
    }
    t.equal(at, size, `${size}: the pieces are all of it`);
  }
  t.end();
});
