/**
 * What the machine does beside (two cores for several nodes, and whoever else has them) makes a measurement bad now and then,
 * but not each time: it is made again, so many times at most. Gives the last. What must hold each time is for `once` to look
 * at.
 */
export async function untilGood<T>(
  tries: number,
  once: (nth: number) => Promise<T>,
  isGood: (one: T) => boolean,
): Promise<T> {
  for (let nth = 0; ; nth += 1) {
    const one = await once(nth);
    if (isGood(one) || nth === tries - 1) return one;
  }
}
