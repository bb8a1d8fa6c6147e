/** What a mirror holds in benches of one that holds much: images of small layers. */
export const DIGESTS = 1_000;
const LAYERS_PER_IMAGE = 99;

/** Images, one after the other, until they have that many digests; each is given by the bytes of its layers. */
export async function pullMany(
  pull: (layers: readonly number[], nth: number) => Promise<void>,
): Promise<void> {
  for (let n = 0; n < DIGESTS / LAYERS_PER_IMAGE; n += 1) {
    await pull(
      Array.from({ length: LAYERS_PER_IMAGE }, () => 4_096),
      n,
    );
  }
}
